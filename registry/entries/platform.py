"""Entries on platforms: layouts, GPU architectures, AITER features, switches."""

from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from preshuffle.registry.algebra.layout import Layout, Unit
from preshuffle.registry.base.errors import LayoutError, PlacedError
from preshuffle.registry.base.frozen import Frozen, FrozenDict, Size, Version
from preshuffle.registry.base.globs import Glob
from preshuffle.registry.base.words import PassedAs

Evidence = tuple[str, ...]


class AiterFunction(Frozen):
    """A function of AITER's that lays bytes out.

    Attributes:
        module: where it lives.
        name: its name there.
        arguments: positional arguments behind the tensor; ``experts`` stands for their number.
        flat: whether it takes ``[experts * rows, K]``.
        archs: GPUs on which it does this; empty for all.
        item_sizes: bytes of an element for which it does this; empty for all. Some functions count elements.
    """

    module: str
    name: str
    arguments: tuple[int | bool | Literal["experts"] | tuple[int, ...], ...] = ()
    flat: bool = False
    archs: tuple[str, ...] = ()
    item_sizes: tuple[Literal[1, 2, 4], ...] = ()


class LayoutEntry(Frozen):
    """Layout: its pattern, aliases, and AITER's functions, newest first.

    Attributes:
        passed_as: the shape in which kernels take an MX scale that lies so; None where its backend decides.
    """

    id: str
    title: str = ""
    pattern: str
    unit: Unit = "any"
    k_multiple: Annotated[int, Field(ge=1)] | None = None
    aliases: tuple[str, ...] = ()
    passed_as: PassedAs | None = None
    aiter: tuple[AiterFunction, ...] = ()
    evidence: Evidence = ()

    @model_validator(mode="after")
    def _parses(self) -> Self:
        try:
            self.layout()
        except LayoutError as error:
            raise PlacedError(("k_multiple" if "k_multiple" in str(error) else "pattern",), str(error)) from None
        return self

    def layout(self) -> Layout:
        """Return the layout itself."""
        return Layout.of(self.id, self.pattern, self.unit, self.k_multiple)


class ArchEntry(Frozen):
    """A GPU architecture.

    Attributes:
        aliases: other names by product; by the architecture's id for names that mean no one product.
        cu_num: compute units of the whole chip, by product.
        partitions: compute units of one part, by product and mode, where a chip can be split.
        fp8: which fp8 its matrix instructions take.
        features: what recipes may require of it.
        lacks: features that people expect and it has not, with what to say of it.
        unverified: fields whose values rest on general knowledge.
    """

    id: str
    products: tuple[str, ...]
    aliases: FrozenDict[str, tuple[str, ...]] = Field(default_factory=FrozenDict)
    cu_num: FrozenDict[str, Size] = Field(default_factory=FrozenDict)
    partitions: FrozenDict[str, FrozenDict[str, Size]] = Field(default_factory=FrozenDict)
    fp8: Literal["fp8_e4m3fn", "fp8_e4m3fnuz"] | None
    features: tuple[str, ...] = ()
    lacks: FrozenDict[str, str] = Field(default_factory=FrozenDict)
    unverified: tuple[str, ...] = ()
    evidence: Evidence = ()

    @model_validator(mode="after")
    def _aliases_are_of_products(self) -> Self:
        products = {self.id, *self.products}
        for name in self.aliases:
            if name not in products:
                raise PlacedError(("aliases", name), f"{name!r} is neither a product nor {self.id}")
        return self

    @cached_property
    def default_cu_num(self) -> int | None:
        """The compute units, where every product has the same number."""
        numbers = set(self.cu_num.values())
        return numbers.pop() if len(numbers) == 1 else None

    @property
    def no_fused_moe(self) -> str | None:
        """Why AITER has no fused MoE for it; None where it has."""
        return self.lacks.get("fused_moe")

    def name_of(self, cu_num: int) -> tuple[str, ...]:
        """Return products and partitions with that many compute units.

        A partition is written as ``MI300X in CPX``.
        """
        products = tuple(product for product, number in self.cu_num.items() if number == cu_num)
        parts = tuple(
            f"{product} in {mode}"
            for product, modes in self.partitions.items()
            for mode, number in modes.items()
            if number == cu_num
        )
        return products + parts


class OtherGpuEntry(Frozen):
    """GPUs known by name only, so that a refusal can say why.

    Attributes:
        patterns: globs of their names, in lower case, without spaces, hyphens and underscores.
        says: what they are; it follows "is".
    """

    id: str
    title: Annotated[str, Field(min_length=1)]
    patterns: Annotated[tuple[Glob, ...], Field(min_length=1)]
    says: Annotated[str, Field(min_length=1)]
    evidence: Evidence = ()


class FeatureProbe(Frozen):
    """Way to see a feature in AITER's source.

    A name, a function's parameter, or a piece of text.

    Attributes:
        module: the module to search, for example ``aiter.fused_moe``.
        name: a function or class that must be there.
        parameter: one that this function must take.
        text: what the module's source must hold, instead of a name.
    """

    module: Annotated[str, Field(pattern=r"^aiter(\.\w+)*$")]
    name: Annotated[str, Field(min_length=1)] | None = None
    parameter: Annotated[str, Field(min_length=1)] | None = None
    text: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _looks_for_one_thing(self) -> Self:
        if (self.name is None) == (self.text is None):
            raise PlacedError(("name",), "a probe looks for a name or for a text")
        if self.parameter and self.name is None:
            raise PlacedError(("parameter",), "a parameter is one of a named function")
        return self


class FeatureEntry(Frozen):
    """Something that AITER can do since a version.

    Attributes:
        until: the first version that does it no more.
        backports: older releases that do it too: pairs of the first that does and the first that does not again.
        probe: how to see it in an AITER; None where nothing shows it.
    """

    id: str
    title: str
    since: Version
    until: Version | None = None
    backports: tuple[tuple[Version, Version], ...] = ()
    probe: FeatureProbe | None = None
    evidence: Evidence = ()


class FlagEntry(Frozen):
    """Environment switch or command-line option (id begins with dashes).

    Attributes:
        owner: who reads it: an engine's name, or ``aiter``.
        default: its value where it is not set; None where being unset is a value of its own.
        values: what it may be, with the meaning of each; empty where any text may stand.
        choices: by engine, the closed list of an option's values, each with the first release that takes it; the engine
            refuses any other value. Case and dashes for underscores do not count.
        boolean: read as true or false, whatever the spelling; its values are then "0" and "1".
        released: whether any release of its owner reads it.
        since: the owner's first version that reads it.
        until: the owner's first version that reads it no more.
        removed: what removed it, where no version tells.
        without_engine: whether a query that names no engine may use it.
        also: other engines in which it may be read (as a plugin's, or by name).
        affects: what it changes.
        read: whether its reader looks at every call, or once while it is imported or starts; None where that is not
            known, which counts as once.
        sets: the query's field that its value is, where the query leaves that out.
        names_backend: whether its value is the name of a backend that then runs.
    """

    id: str
    owner: str
    default: str | None = None
    values: FrozenDict[str, str] = Field(default_factory=FrozenDict)
    choices: FrozenDict[str, FrozenDict[str, Version | None]] = Field(default_factory=FrozenDict)
    boolean: bool = False
    meaning: str
    released: bool = True
    since: Version | None = None
    until: Version | None = None
    removed: str | None = None
    without_engine: bool = False
    also: tuple[str, ...] = ()
    affects: tuple[Literal["layout", "backend", "numerics", "shapes", "speed"], ...]
    read: Literal["call", "import"] | None = None
    sets: Literal["all_to_all"] | None = None
    names_backend: bool = False
    evidence: Evidence = ()

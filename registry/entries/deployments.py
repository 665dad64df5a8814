"""Entries on deployments: backends, contracts, known-bad kernels, pad conventions."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from preshuffle.registry.base.errors import PlacedError
from preshuffle.registry.base.frozen import Frozen, FrozenDict, Version, freeze
from preshuffle.registry.base.globs import Glob
from preshuffle.registry.base.linear_pattern import Pattern
from preshuffle.registry.base.words import Activation, Dtype, PassedAs, Role
from preshuffle.registry.entries.facts import FactCondition, Facts

Evidence = Annotated[tuple[str, ...], Field(min_length=1)]
Text = Annotated[str, Field(min_length=1)]
ContractCode = Literal[
    "unsupported",
    "version_unsupported",
    "contract_mismatch",
    "layout_mismatch",
    "scale_shape",
    "flag_conflict",
    "not_known",
]


def _as_list(value: Any) -> Any:
    """Take one set of conditions as the list of it."""
    return ((value,) if value else ()) if isinstance(value, Mapping) else value


Conditions = Annotated[FrozenDict[str, Any], AfterValidator(freeze)]
Exceptions = Annotated[
    tuple[Conditions, ...],
    BeforeValidator(_as_list, json_schema_input_type=FrozenDict[str, Any] | tuple[FrozenDict[str, Any], ...]),
]
Multiple = Annotated[int, Field(ge=1)]


class Conditional(Frozen):
    """Entry that holds under conditions on a deployment's facts.

    ``entries.facts`` names the facts.

    Attributes:
        when: what each fact must be; a fact that is not known matches nothing.
        unless: if all of these hold too, the entry does not apply (a work-around that is in place). Of several sets of
            conditions, any suffices.
    """

    when: Conditions = Field(default_factory=FrozenDict)
    unless: Exceptions = ()

    @model_validator(mode="after")
    def _conditions_parse(self) -> Self:
        for part, sets in (("when", (self.when,)), ("unless", self.unless)):
            for name, wanted in (item for conditions in sets for item in conditions.items()):
                try:
                    FactCondition.parse(name, wanted)
                except ValueError as error:
                    raise PlacedError((part, name), str(error)) from None
        return self

    def divided(self, facts: Facts) -> str | None:
        """Return the sizes and ranks of its remainders.

        As ``intermediate_size 2880, tp 7``; None where no condition is on a remainder by the ranks.
        """
        conditions = (FactCondition.parse(name, wanted) for name, wanted in self.when.items())
        names = (name for condition in conditions if len(condition.facts) > 1 for name in condition.facts)
        return ", ".join(f"{name} {facts.get(name)}" for name in names) or None


class KnownBadEntry(Conditional):
    """Kernel, shape or version that is wrong, crashes or is slow.

    Although bytes and call agree.

    Attributes:
        effect: what happens. ``slow`` makes the finding a warning, and so does ``differs``: the bytes and the call are
            right, and the engine's own code would do otherwise.
        says: what was seen.
        workaround: what to do.
        since: the first release whose code was read to do so, of AITER, or of the engine that ``when`` names. It is no
            condition.
        rests_on: ``code`` where the cause was read in the code of a release; ``reports`` where it is what people saw
            and the cause was not found. The finding says so.
    """

    id: str
    effect: Literal["wrong", "crash", "slow", "differs"]
    says: Text
    workaround: Text
    rests_on: Literal["code", "reports"] = "code"
    since: Version | None = None
    evidence: Evidence

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.when:
            raise PlacedError(("when",), "an entry without conditions would condemn every deployment")
        return self


class ContractEntry(Conditional):
    """Combination of facts that cannot work, or that contradicts itself.

    Attributes:
        code: what it is a finding of; ``not_known`` where what AITER runs is not recorded for that version, so that
            nothing is concluded from the run.
        blocks: whether the run cannot happen, so that its bytes are not compared.
        refuses: whether no recipe is given where the conditions on the layer hold, whatever kernel runs it.
        since: the first release whose code was read to do so, of AITER, or of the engine that ``when`` names. It is no
            condition.
    """

    id: str
    code: ContractCode
    role: Role | None = None
    blocks: bool = True
    refuses: bool = False
    says: Text
    fix: Text
    since: Version | None = None
    evidence: Evidence

    @property
    def engine_since(self) -> str | None:
        """The first release that was read; None where it is AITER's."""
        return self.since if self.when.get("engine") else None


class Variant(Frozen):
    """Layouts that a backend reads on some GPUs, dtypes or activations.

    Attributes:
        activation: for these only; where the activation is not known, it may be one of them.
        reads: layout ids by role; several where the backend may read any of them.
        runs_in: the activation dtype, where it has only one.
    """

    arch: tuple[str, ...] = ()
    weight_dtype: tuple[Dtype, ...] = ()
    activation: tuple[Activation, ...] = ()
    through: Literal["aiter", "own"] = "own"
    reads: FrozenDict[Role, tuple[str, ...]] = Field(default_factory=FrozenDict)
    runs_in: Dtype | None = None


class BackendEntry(Frozen):
    """A MoE backend, by AITER's, Triton's or an engine's own name.

    Attributes:
        aliases: other spellings; case never matters.
        archs: where it exists; empty for everywhere.
        expert_map: the kind of expert map that it takes; None where it is not known.
        dense: whether it reads dense memory (a strided view would be read wrongly).
        mx_scales: the shape in which it takes MX scales, where their layout has none; None where it is not known.
        variants: what it reads; the first that fits counts. ``through: aiter`` hands over to AITER's own dispatch.
    """

    id: str
    title: Text
    aliases: tuple[str, ...] = ()
    archs: tuple[str, ...] = ()
    expert_map: Literal["mask", "index"] | None = None
    dense: bool = True
    mx_scales: PassedAs | None = None
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    evidence: Evidence

    def variant_for(self, arch: str, weight_dtype: str | None, activation: str | None) -> Variant | None:
        """Return what it reads of a layer.

        None where nothing fits, or it depends on what is not known.
        """
        for variant in self.variants:
            if variant.weight_dtype and weight_dtype is None:
                return None
            if variant.arch and arch not in variant.arch:
                continue
            if variant.weight_dtype and weight_dtype not in variant.weight_dtype:
                continue
            if variant.activation and activation not in (None, *variant.activation):
                continue
            return variant
        return None


class ScaleLabelEntry(Frozen):
    """Label of Triton's ``swizzle_mx_scale``, and the layouts it stands for."""

    id: str
    layouts: Annotated[tuple[str, ...], Field(min_length=1)]
    archs: tuple[str, ...] = ()
    evidence: Evidence


class KernelLabelEntry(Frozen):
    """Short kernel name in logs or tables, and what it stands for.

    Attributes:
        families: kernel families by stage.
        reads: what is known to be read; empty where it depends on the call.
        takes: activation dtype, where the label says it.
    """

    id: str
    pattern: Pattern
    families: FrozenDict[Literal["1", "2", "1-stage"], str]
    reads: FrozenDict[Role, tuple[str, ...]] = Field(default_factory=FrozenDict)
    takes: Dtype | None = None
    evidence: Evidence


class DimensionNeed(Frozen):
    """Multiple that a dimension must have, above some size."""

    dimension: Literal["model_dim", "inter_dim"]
    multiple: Multiple
    above: int = 0


class KernelNeedEntry(Frozen):
    """Physical dimensions that kernel families need, per rank.

    Attributes:
        families: kernel families; empty for every reader, AITER's or not.
    """

    id: str
    families: tuple[str, ...] = ()
    quant_type: tuple[str, ...] = ()
    needs: Annotated[tuple[DimensionNeed, ...], Field(min_length=1)]
    because: Text
    evidence: Evidence


class PadConventionEntry(Conditional):
    """Engine's own way to pass pads.

    Where it passes neither the raw pad nor that pad rounded down to 64 or 128.

    Attributes:
        times: what it multiplies the pad with; 0 where it passes none to kernels that ignore it.
    """

    id: str
    argument: Literal["hidden_pad", "intermediate_pad"]
    round_down: Multiple = 1
    times: Annotated[int, Field(ge=0, le=16)] = 1
    evidence: Evidence


class SwitchPatternEntry(Frozen):
    """Pattern of switch names that only one program reads.

    A name that matches and is not among the book's switches is read by nobody.
    """

    id: str
    owner: Text
    patterns: Annotated[tuple[Glob, ...], Field(min_length=1)]
    evidence: Evidence

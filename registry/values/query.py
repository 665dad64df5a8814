"""The question: a model on a GPU, in an engine, with an environment."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from preshuffle.registry.base.errors import QueryError
from preshuffle.registry.base.versions import version_key
from preshuffle.registry.base.words import Activation, Dtype, QuantType, RowOrder
from preshuffle.registry.text.field_problems import field_problems

if TYPE_CHECKING:
    from preshuffle.registry.registry import Registry


def _version(value: str) -> str:
    version_key(value)
    return value


Version = Annotated[str, AfterValidator(_version)]

TOKENS = (1, 16, 64, 256, 1024, 4096, 16384)


def number(value: Any) -> Any:
    """Refuse true and false where a number is meant."""
    if isinstance(value, bool):
        raise ValueError(f"a number is needed, found {value}")
    return value


Size = Annotated[int, Field(ge=1, le=2**20), BeforeValidator(number)]
Tokens = Annotated[int, Field(ge=1, le=2**31), BeforeValidator(number)]
Clamp = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ranks = Annotated[int, Field(ge=1, le=4096), BeforeValidator(number)]


class Frozen(BaseModel):
    """Base of every public value: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    def altered(self, **fields: Any) -> Self:
        """Return a copy with other values, which are not validated: ``model_copy`` for hot paths."""
        return unvalidated(type(self), {**self.__dict__, **fields}, self.__pydantic_fields_set__ | fields.keys())


Model = TypeVar("Model", bound=BaseModel)
_set = object.__setattr__


def unvalidated(kind: type[Model], values: dict[str, Any], stated: set[str] | None = None) -> Model:
    """Make a model of values that are known to be right, all of them: ``model_construct`` for hot paths."""
    made = kind.__new__(kind)
    _set(made, "__dict__", values)
    _set(made, "__pydantic_fields_set__", set(values) if stated is None else stated)
    _set(made, "__pydantic_extra__", None)
    _set(made, "__pydantic_private__", None)
    return made


class Engine(Frozen):
    """An inference engine, and its version where it is known."""

    name: Annotated[str, Field(min_length=1)]
    version: Version | None = None

    def __str__(self) -> str:
        """Return ``name@version``."""
        return f"{self.name}@{self.version}" if self.version else self.name


def _engine(value: Any) -> Any:
    if isinstance(value, str):
        name, at, version = value.partition("@")
        if at and not version:
            raise ValueError(f"{value!r}: a version is missing after the @")
        return {"name": name, "version": version or None}
    return value


Value = TypeVar("Value", str, bool)


class Fixed(dict[str, Value]):
    """A mapping that cannot be changed, so that a query that holds it can be a key."""

    def __hash__(self) -> int:  # type: ignore[override]
        """Hash by what it holds."""
        return hash(frozenset(self.items())) if self else 0

    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Value]]]:
        """Be copied and pickled by what it holds."""
        return type(self), (dict(self),)

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a query cannot be changed; build another one")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse


class Environment(Fixed[str]):
    """Switches and their values."""


class Probed(Fixed[bool]):
    """Features that were looked for in an AITER, and whether they were found."""

    def __str__(self) -> str:
        """Return ``gate_mode,!situv2``: found, and not found."""
        return ",".join(name if found else f"!{name}" for name, found in self.items())


@lru_cache(maxsize=256)
def read_probed(text: str) -> Mapping[str, bool]:
    """Return features as they stand in a text: ``gate_mode,!situv2``, empty for none.

    Raises:
        ValueError: a name is missing.
    """
    names = [name.strip() for name in text.split(",")]
    if text and not all(name.strip("!") for name in names):
        raise ValueError(f"{text!r}: names with commas between them, a ! before what was not found")
    return {name.removeprefix("!"): not name.startswith("!") for name in names if name}


def _probed(value: Any) -> Any:
    return dict(read_probed(value)) if isinstance(value, str) else value


def _environment(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: str(v) if isinstance(v, int) and not isinstance(v, bool) else v for k, v in value.items()}
    return value


def _once(values: tuple[int, ...]) -> tuple[int, ...]:
    """Keep the first of values that are given more than once."""
    return tuple(dict.fromkeys(values))


class Query(Frozen):
    """What is asked. Sizes are the model's, unsharded; what is left out comes from the model's entry.

    Attributes:
        model: a Hugging Face id, a path, or a name of your own.
        arch: the GPU's gfx name.
        activation_dtype: what the checkpoint wants; AITER may switch it with the token count.
        gate_up_order: row order of w13 in the checkpoint.
        num_experts: of the whole model, fused shared experts counted (so does ``top_k``).
        swiglu_limit: where the activation clamps gate and up; 0.0 is no clamp.
        tp: tensor-parallel size; shards independently of ``ep``.
        aiter: AITER's version, or ``0.1.20.dev+g<commit>``.
        aiter_features: AITER's features as probed: found, and (``!gate_mode``) not found. Counts before the version.
        env: environment switches, interpreted through the book's flags only.
        tokens: token counts for which the kernel is predicted.
    """

    model: Annotated[str, Field(min_length=1, max_length=512)]
    arch: Annotated[str, Field(pattern=r"^gfx[0-9a-f]{3,5}$")]
    cu_num: Ranks | None = None
    weight_dtype: Dtype | None = None
    quant_type: QuantType | None = None
    activation: Activation | None = None
    activation_dtype: Dtype | None = None
    gate_up_order: RowOrder | None = None
    producer: str | None = None
    hidden_size: Size | None = None
    intermediate_size: Size | None = None
    num_experts: Size | None = None
    top_k: Size | None = None
    gated: bool = True
    bias: bool | None = None
    swiglu_limit: Clamp | None = None
    tp: Ranks = 1
    ep: Ranks = 1
    engine: Annotated[Engine | None, BeforeValidator(_engine, json_schema_input_type=Engine | str | None)] = None
    aiter: Version | None = None
    aiter_features: Annotated[
        dict[str, bool],
        BeforeValidator(_probed, json_schema_input_type=dict[str, bool] | str),
        AfterValidator(Probed),
    ] = Field(default_factory=Probed, max_length=256)
    rocm: Version | None = None
    deployment: str | None = None
    env: Annotated[
        dict[str, str],
        BeforeValidator(_environment, json_schema_input_type=dict[str, str | int]),
        AfterValidator(Environment),
    ] = Field(default_factory=Environment)
    tokens: Annotated[tuple[Tokens, ...], Field(min_length=1, max_length=256), AfterValidator(_once)] = TOKENS

    @classmethod
    def parse(cls, value: Any) -> Query:
        """Validate a mapping.

        Raises:
            QueryError: names each wrong field, what was found and what is valid.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise QueryError([problem for _, problem in field_problems(error)]) from None

    @classmethod
    def from_hf_config(
        cls,
        config: Mapping[str, Any] | str | Path,
        *,
        registry: Registry | None = None,
        layer: int | None = None,
        **fields: Any,
    ) -> Query:
        """Build a query from a Hugging Face ``config.json`` (a mapping, its path, or the checkpoint's folder).

        Args:
            config: the configuration; how its fields are named is the book's ``model_types``.
            registry: whose book to use; the packaged one by default.
            layer: whose experts are meant; needed only where the layers' experts differ.
            fields: the rest of the query (``arch`` at least); they override what the configuration says.

        Raises:
            QueryError: the file cannot be read, the model type is unknown, or a field is missing or wrong.

        Example:
            >>> config = {"model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880,
            ...           "num_local_experts": 32, "num_experts_per_tok": 4,
            ...           "quantization_config": {"quant_method": "mxfp4"}}
            >>> Query.from_hf_config(config, arch="gfx950").weight_dtype
            'fp4x2'
        """
        from preshuffle.registry.hf.config import query_of
        from preshuffle.registry.registry import Registry

        return query_of(config, (registry or Registry.default()).book, fields, layer)

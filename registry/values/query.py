"""Query: a model on a GPU, in an engine, with an environment."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from preshuffle.registry.base.frozen import Clamp, Frozen, FrozenDict, Ranks, Size, Tokens, Version
from preshuffle.registry.base.limits import MAX_FEATURES, MAX_SWITCHES, MAX_TOKENS, Name, SwitchValue, at_most
from preshuffle.registry.base.words import Dtype, ModelActivation, QuantType, RowOrder, Shard, activation_of
from preshuffle.registry.values.input import Input

TOKENS = (1, 16, 64, 256, 1024, 4096, 16384)


class Engine(Frozen):
    """An inference engine, and its version where it is known."""

    name: Annotated[Name, Field(min_length=1)]
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


class ProbedFeatures(FrozenDict[str, bool]):
    """AITER features that were probed, each with the result."""

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


def _activation(value: Any) -> Any:
    return (activation_of(value) or value) if isinstance(value, str) else value


def _once(values: tuple[int, ...]) -> tuple[int, ...]:
    """Keep the first of values that are given more than once."""
    return tuple(dict.fromkeys(values))


class Query(Input):
    """Question to the registry: model, GPU, engine, environment.

    Sizes are the model's, unsharded; what is left out comes from the model's entry.

    Attributes:
        model: a Hugging Face id, a path, or a name of your own.
        arch: the GPU: a gfx name, torch's ``gcnArchName``, or a product such as MI355X.
        cu_num: compute units of the GPU or of its partition.
        activation_dtype: what the checkpoint wants; AITER may switch it with the token count.
        gate_up_order: row order of w13 in the checkpoint.
        num_experts: of the whole model, fused shared experts counted (so does ``top_k``).
        router_weight_on_input: the router's weight multiplies what goes into an expert, not what comes out.
        activation_scales: whether the checkpoint has scales of the experts' activations (static), or they are computed.
        swiglu_limit: where the activation clamps gate and up; 0.0 is no clamp.
        shard: how the loader cuts the intermediate size between the ranks, where that is not as the engine's rule says:
            whole scale groups, equal numbers of values, whole blocks of 128, or slices of the padded size of a rank.
        tp: tensor-parallel size; shards independently of ``ep``, but beside it counts as 1 where the engine's ranks
            then hold whole experts (vLLM, ATOM).
        dp: data-parallel size.
        all_to_all: how tokens go between expert-parallel ranks (none, mori, deepep, ...); None where it is not told.
        aiter: AITER's version, or ``0.1.20.dev+g<commit>``.
        aiter_features: AITER's features as probed: found, and (``!gate_mode``) not found. Counts before the version.
        env: environment switches, interpreted through the book's flags only.
        tokens: token counts for which the kernel is predicted.
    """

    model: Annotated[str, Field(min_length=1, max_length=512)]
    arch: Annotated[str, Field(pattern=r"^[A-Za-z0-9 ._-]*[0-9][A-Za-z0-9 ._:+-]*$", max_length=64)]
    cu_num: Ranks | None = None
    weight_dtype: Dtype | None = None
    quant_type: QuantType | None = None
    activation: Annotated[ModelActivation | None, BeforeValidator(_activation)] = None
    activation_dtype: Dtype | None = None
    gate_up_order: RowOrder | None = None
    producer: Name | None = None
    hidden_size: Size | None = None
    intermediate_size: Size | None = None
    num_experts: Size | None = None
    top_k: Size | None = None
    gated: bool = True
    bias: bool | None = None
    router_weight_on_input: bool | None = None
    activation_scales: Literal["static", "dynamic"] | None = None
    swiglu_limit: Clamp | None = None
    shard: Shard | None = None
    tp: Ranks = 1
    ep: Ranks = 1
    dp: Ranks = 1
    all_to_all: Annotated[str, Field(pattern=r"^[a-z0-9_]+$", max_length=64)] | None = None
    engine: Annotated[Engine | None, BeforeValidator(_engine, json_schema_input_type=Engine | str | None)] = None
    aiter: Version | None = None
    aiter_features: Annotated[
        dict[Name, bool],
        BeforeValidator(_probed, json_schema_input_type=dict[str, bool] | str),
        AfterValidator(ProbedFeatures),
        at_most(MAX_FEATURES),
    ] = Field(default_factory=ProbedFeatures, max_length=MAX_FEATURES)
    rocm: Version | None = None
    deployment: Name | None = None
    env: Annotated[
        FrozenDict[Name, SwitchValue],
        at_most(MAX_SWITCHES),
        BeforeValidator(_environment, json_schema_input_type=dict[str, str | int]),
    ] = Field(default_factory=FrozenDict, max_length=MAX_SWITCHES)
    tokens: Annotated[
        tuple[Tokens, ...], Field(min_length=1, max_length=MAX_TOKENS), at_most(MAX_TOKENS), AfterValidator(_once)
    ] = TOKENS

"""Observation: bytes, call and kernels that a deployment reports.

What is left out is unknown.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from preshuffle.registry.base.frozen import Frozen, FrozenDict, number
from preshuffle.registry.base.limits import (
    MAX_EVENTS,
    MAX_KERNELS,
    MAX_RANKS,
    MAX_SLOTS,
    MAX_TENSORS,
    KernelName,
    Name,
    at_most,
)
from preshuffle.registry.base.words import Dtype, GateMode, Role, RowOrder, TensorDtype
from preshuffle.registry.values.input import Input
from preshuffle.registry.values.query import Query


def _as_list(value: Any) -> Any:
    """Take one number as the list of it."""
    return (value,) if isinstance(value, int) and not isinstance(value, bool) else value


Event = Literal["apply", "reload", "begin_reload", "load_raw", "rewrap", "migrate", "sleep", "wake"]
Count = Annotated[int, Field(ge=0, le=2**62), BeforeValidator(number)]
PerRank = Annotated[
    tuple[Count, ...],
    Field(min_length=1, max_length=MAX_RANKS),
    at_most(MAX_RANKS),
    BeforeValidator(_as_list, json_schema_input_type=Any),
]
Shape = Annotated[tuple[Count, ...], Field(min_length=1, max_length=4)]
Slots = Annotated[tuple[Count, ...], Field(max_length=MAX_SLOTS), at_most(MAX_SLOTS)]
Rank = Annotated[int, Field(ge=-(2**62), le=2**62)]
Byte = Annotated[int, Field(ge=0, le=255)]


class TensorObservation(Frozen):
    """One tensor as the kernel gets it.

    Attributes:
        physical_shape: with its padding, as ``[experts, rows, K]`` or as the kernel gets it.
        passed_shape: of the tensor that the kernel gets, K in values (of a scale in groups).
        rows_loaded: rows of the checkpoint that each rank read.
        slots_loaded: expert slots of one rank that the loader filled, by number.
    """

    layout: Name | None = None
    is_shuffled: bool | None = None
    contiguous: bool = True
    dtype: TensorDtype | None = None
    logical_shape: Shape | None = None
    physical_shape: Shape | None = None
    passed_shape: Shape | None = None
    pad_fill: Literal["zero", "uninitialised"] | Byte | None = None
    address_changed: bool | None = None
    rows_loaded: Annotated[tuple[Count, ...], Field(max_length=MAX_RANKS), at_most(MAX_RANKS)] | None = None
    slots_loaded: Slots | None = None


class ObservedKernel(Frozen):
    """A kernel that ran, or the backend that ran it."""

    tokens: Annotated[int, Field(ge=1, le=2**62)] | None = None
    stage1: KernelName | None = None
    stage2: KernelName | None = None
    backend: Name | None = None


class CacheKey(Frozen):
    """What a cache of laid-out weights was made for."""

    recipe_digest: Name | None = None
    aiter: Name | None = None
    arch: Name | None = None
    tp: Rank | None = None
    ep: Rank | None = None


class Applied(Frozen):
    """What was done to the tensors, and the arguments passed.

    Attributes:
        function: the entry point that was called, such as ``fused_moe``.
        doweight_stage1: whether the kernel was told to multiply the router's weights in stage 1.
        router_weight: where the router's weights were multiplied, by the kernel or by its caller.
        expert_map: a 0/1 mask over all experts, or their local numbers (-1 for those of other ranks).
        mask_ones: how many ones the mask has, of one rank or of each.
        mask_size: how many entries the mask has.
        local_experts: how many experts a rank holds, of one rank or of each.
        dummy_slots: expert slots of a rank that the router never chooses.
    """

    function: Name | None = None
    gate_mode: GateMode | None = None
    doweight_stage1: bool | None = None
    router_weight: Literal["input", "output"] | None = None
    hidden_pad: Count | None = None
    intermediate_pad: Count | None = None
    swiglu_limit: Annotated[float, Field(allow_inf_nan=False)] | None = None
    bias_passed: bool | None = None
    expert_map: Literal["mask", "index"] | None = None
    mask_ones: PerRank | None = None
    mask_size: Count | None = None
    local_experts: PerRank | None = None
    dummy_slots: Slots = ()
    quant_dtype_a: Dtype | None = None
    swizzle_mx_scale: Name | None = None
    source_order: RowOrder | None = None
    fallback_backend: Name | None = None
    graphs: bool | None = None
    eplb: bool | None = None
    lora: bool | None = None
    kernels: Annotated[tuple[ObservedKernel, ...], Field(max_length=MAX_KERNELS), at_most(MAX_KERNELS)] = ()
    cache: CacheKey | None = None
    events: Annotated[tuple[Event, ...], Field(max_length=MAX_EVENTS), at_most(MAX_EVENTS)] = ()
    tensors: Annotated[FrozenDict[Role, TensorObservation], at_most(MAX_TENSORS)] = Field(default_factory=FrozenDict)


class Observation(Input):
    """A query, and what was applied for it."""

    query: Query
    applied: Applied = Applied()

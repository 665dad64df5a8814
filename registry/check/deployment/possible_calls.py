"""Possible calls: every combination of arguments that an observation leaves open.

What was not observed may have been anything, so an error counts only if every possible call has one. The first call is
the most plausible one: its findings are reported, and its errors only where no other call is free of errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from typing import TypeVar

from preshuffle.registry.base.words import GateMode, Role
from preshuffle.registry.check.deployment.observed_layer import WEIGHTS, ObservedLayer
from preshuffle.registry.kernels import behaviour_of

_MOST_CALLS = 32
ROWS_OF_W13: tuple[Role, ...] = ("w13_weight", "w13_weight_scale")
"""Tensors whose row order is that of the call's gate_mode."""
_PADDINGS = (256, 1)
_TOP_K = (8, 2)
_VERSIONS = (None, "0.1.18", "0.1.14")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PossibleCall:
    """One call of AITER that fits an observation.

    Attributes:
        gate_mode: as it reaches AITER.
        is_shuffled: whether w1 or w2 carries the tag.
        bias: whether biases are passed.
        sizes: ``(model_dim, inter_dim)``, physical.
        doweight_stage1: whether the kernel multiplies the router's weights in stage 1.
    """

    gate_mode: GateMode
    is_shuffled: bool
    bias: bool
    sizes: tuple[int, int]
    experts: int
    top_k: int
    cu_num: int
    aiter: str | None
    doweight_stage1: bool


def possible_calls(layer: ObservedLayer) -> Iterator[PossibleCall]:
    """Yield the possible calls, the most plausible first.

    There are none where too little is known.
    """
    query = layer.query
    if None in (query.weight_dtype, query.quant_type, query.activation):
        return
    axes = (
        _gate_modes(layer),
        _tags(layer),
        _biases(layer),
        _sizes(layer),
        _known_or(layer.experts, (128,)),
        _known_or(query.top_k, _TOP_K),
        _compute_units(layer),
        _known_or(query.aiter, _VERSIONS),
        _weighted_stages(layer),
    )
    for values in islice(product(*axes), _MOST_CALLS):
        yield PossibleCall(*values)


def _known_or(known: T | None, otherwise: tuple[T, ...]) -> tuple[T, ...]:
    return otherwise if known is None else (known,)


def _gate_modes(layer: ObservedLayer) -> tuple[GateMode, ...]:
    if layer.applied.gate_mode is not None:
        return (layer.applied.gate_mode,)
    if layer.query.quant_type != "per_1x32":
        return ("separated",)
    version = layer.query.aiter
    if version is not None and "gate_mode" not in behaviour_of(version).data.features:
        return ("separated",)
    first: GateMode = "separated"
    for role in ROWS_OF_W13:
        tensor = layer.tensors.get(role)
        if tensor is not None and tensor.layout is not None:
            first = tensor.layout.gate_mode
            break
    return (first, "interleave" if first == "separated" else "separated")


def _tags(layer: ObservedLayer) -> tuple[bool, ...]:
    weights = [layer.tensors[role] for role in WEIGHTS if role in layer.tensors]
    tags = [tensor.observation.is_shuffled for tensor in weights]
    if any(tags):
        return (True,)
    if len(tags) == 2 and None not in tags:
        return (False,)
    if False in tags:
        return (False, True)
    # A tag that contradicts the bytes would be an error of its own, so that possibility acquits nothing.
    if layer.laid_out:
        return (True,)
    return (False,) if weights and all(tensor.plain for tensor in weights) else (False, True)


def _biases(layer: ObservedLayer) -> tuple[bool, ...]:
    if layer.applied.bias_passed is not None:
        return (layer.applied.bias_passed,)
    return {True: (True, False), False: (False,), None: (False, True)}[layer.query.bias]


def _weighted_stages(layer: ObservedLayer) -> tuple[bool, ...]:
    passed = doweight_stage1(layer)
    if passed is not None:
        return (passed,)
    return (True, False) if layer.query.router_weight_on_input else (False,)


def _sizes(layer: ObservedLayer) -> tuple[tuple[int, int], ...]:
    hidden, inter = layer.sizes
    if hidden and inter:
        return ((hidden, inter),)
    live, width = layer.hidden(), layer.intermediate()
    if width is None and layer.query.intermediate_size:
        width = max(layer.query.intermediate_size // layer.query.tp, 1)
    if not (hidden or live) or not (inter or width):
        return ()
    pairs = [(hidden or _up(live, to), inter or _up(width, to)) for to in _PADDINGS]
    return tuple(dict.fromkeys(pairs))


def _up(size: int | None, multiple: int) -> int:
    return -(-(size or 1) // multiple) * multiple


def _compute_units(layer: ObservedLayer) -> tuple[int, ...]:
    if layer.query.cu_num is not None:
        return (layer.query.cu_num,)
    return tuple(dict.fromkeys(layer.arch.cu_num.values())) if layer.arch else ()


def call_dtype(layer: ObservedLayer) -> str:
    """Return the dtype of w13 as AITER's call has it."""
    if layer.query.weight_dtype == "i4x2" and layer.query.quant_type != "per_1x32":
        return "uint32"  # AITER's word for int4 scaled by row: eight values each
    w13 = layer.tensors.get("w13_weight")
    untyped = w13 is not None and w13.observation.dtype == "uint8" and layer.query.weight_dtype == "fp4x2"
    return "uint8" if untyped else str(layer.query.weight_dtype)


def doweight_stage1(layer: ObservedLayer) -> bool | None:
    """Return whether stage 1 multiplies the router's weights; None where unknown."""
    applied = layer.applied
    if applied.doweight_stage1 is None and applied.function is not None:
        function = layer.book.entries["functions"].get(applied.function)
        return True if function is not None and function.doweight_stage1 else None
    return applied.doweight_stage1

"""Calls of AITER that a layer may make.

What was not observed may have been anything, so an error counts only if every possible call has one. The first call is
the most plausible one: its findings are reported, and its errors only where no other call is free of errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product
from typing import NamedTuple, TypeVar

from preshuffle.registry.base.words import GateMode, Role
from preshuffle.registry.kernels import DispatchCall, behaviour_of
from preshuffle.registry.layer.moe_layer import MoELayer
from preshuffle.registry.layer.sizes import shard_share
from preshuffle.registry.layer.tensors import WEIGHTS
from preshuffle.registry.values.query import Query

_MOST_CALLS = 32
ROWS_OF_W13: tuple[Role, ...] = ("w13_weight", "w13_weight_scale")
"""Tensors whose row order is that of the call's gate_mode."""
_PADDINGS = (256, 1)
_TOP_K = (8, 2)

T = TypeVar("T")


class PossibleCall(NamedTuple):
    """One call of AITER that fits a layer.

    Attributes:
        gate_mode: as it reaches AITER.
        is_shuffled: whether w1 or w2 carries the tag.
        bias: whether biases are passed.
        sizes: ``(model_dim, inter_dim)``, physical.
        aiter: None is the newest known.
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


def possible_calls(layer: MoELayer) -> Iterator[PossibleCall]:
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
        _known_or(layer.local_experts, (128,)),
        _known_or(query.top_k, _TOP_K),
        layer.compute_units,
        (None if layer.supposes_newest else query.aiter,),
        _weighted_stages(layer),
    )
    for values in islice(product(*axes), _MOST_CALLS):
        yield PossibleCall(*values)


def dispatch_call(layer: MoELayer, call: PossibleCall, tokens: int) -> DispatchCall:
    """Return the call as AITER's dispatch sees it.

    Args:
        layer: whose sizes, tensors and environment count.
        call: one that fits it.
        tokens: rows of the batch.

    Raises:
        ValidationError: no call can have such sizes.
    """
    query, applied = layer.query, layer.applied
    return DispatchCall.model_validate(
        {
            "gfx": query.arch,
            "cu_num": call.cu_num,
            "tokens": tokens,
            "model_dim": call.sizes[0],
            "inter_dim": call.sizes[1],
            "expert": call.experts,
            "topk": call.top_k + layer.masked_column,
            "activation": query.activation,
            "weight_dtype": weight_word(layer),
            "quant_type": query.quant_type,
            "use_g1u1": query.gated,
            "doweight_stage1": call.doweight_stage1,
            "gate_mode": call.gate_mode,
            "is_shuffled": call.is_shuffled,
            "ep": layer.passes_mask,
            "bias": call.bias,
            "hidden_pad": applied.hidden_pad or 0,
            "intermediate_pad": applied.intermediate_pad or 0,
            "quant_dtype_a": applied.quant_dtype_a,
            "env": query.env,
            "aiter": call.aiter,
        }
    )


def weight_word(layer: MoELayer) -> str:
    """Return the weights' dtype as AITER names it.

    Both kinds of fp8 are one; int4 scaled by row comes eight to a uint32; fp4 that is not typed so is uint8.
    """
    dtype = layer.query.weight_dtype
    if dtype == "i4x2" and layer.query.quant_type != "per_1x32":
        return "uint32"
    w13 = layer.tensors.get("w13_weight")
    untyped = w13 is not None and w13.observation.dtype == "uint8" and dtype == "fp4x2"
    return "uint8" if untyped else str(dtype)


def _known_or(known: T | None, otherwise: tuple[T, ...]) -> tuple[T, ...]:
    return otherwise if known is None else (known,)


def _gate_modes(layer: MoELayer) -> tuple[GateMode, ...]:
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


def _tags(layer: MoELayer) -> tuple[bool, ...]:
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


def _biases(layer: MoELayer) -> tuple[bool, ...]:
    if layer.applied.bias_passed is not None:
        return (layer.applied.bias_passed,)
    return {True: (True, False), False: (False,), None: (False, True)}[layer.query.bias]


def _weighted_stages(layer: MoELayer) -> tuple[bool, ...]:
    passed = layer.doweight_stage1
    if passed is not None:
        return (passed,)
    return (True, False) if layer.query.router_weight_on_input else (False,)


def _sizes(layer: MoELayer) -> tuple[tuple[int, int], ...]:
    hidden, inter = layer.dims
    if hidden and inter:
        return ((hidden, inter),)
    live, width = layer.hidden(), layer.intermediate()
    if width is None and layer.query.intermediate_size:
        width = _share(layer.query, layer.query.intermediate_size)
    if not (hidden or live) or not (inter or width):
        return ()
    pairs = [(hidden or _up(live, to), inter or _up(width, to)) for to in _PADDINGS]
    return tuple(dict.fromkeys(pairs))


def _share(query: Query, size: int) -> int:
    """Return a rank's share of the intermediate size, before a recipe's padding."""
    if query.shard == "whole_blocks":
        return shard_share("whole_blocks", size, query.tp, query.quant_type or "No", lambda _: 1)
    return max(size // query.tp, 1)


def _up(size: int | None, multiple: int) -> int:
    return -(-(size or 1) // multiple) * multiple

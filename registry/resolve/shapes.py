"""Shapes, pads and call of one rank, from recipe and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import NamedTuple

from preshuffle.registry.base.errors import FieldProblem, LayoutError, QueryError
from preshuffle.registry.base.frozen import unvalidated
from preshuffle.registry.base.words import BLOCK_ROWS, GROUP, QuantType, Role, RowOrder, Shard, Step, TensorDtype
from preshuffle.registry.entries import (
    ArchEntry,
    BackendEntry,
    PadArgument,
    PadRule,
    Recipe,
    Tail,
    TensorRecipe,
    multiple_for,
)
from preshuffle.registry.layer import LayerSizes, MoELayer
from preshuffle.registry.loading import Book
from preshuffle.registry.values.decision import CallDecision, Pad, TailFill, TensorDecision


def tensor_decisions(
    recipe: Recipe, sizes: LayerSizes, arch: ArchEntry, book: Book, shard: Shard | None = None
) -> dict[Role, TensorDecision]:
    """Return layout, shape and padding of each tensor of rank 0.

    Biases that the model does not have are left out. ``shard`` is how the engine's loader cuts, where the query does
    not say it.

    Raises:
        QueryError: the sizes cannot be cut between the ranks, or scale blocks hold rows of gate and up.
    """
    if sizes.hidden % sizes.group:
        raise QueryError([FieldProblem("hidden_size", f"{sizes.hidden} is not whole groups of {sizes.group}")])
    pieces, share = sizes.shards(shard, partial(multiple_for, recipe.tensors["w13_weight"].pad.rows))
    first, last = pieces[0].size, pieces[-1].size
    decisions: dict[Role, TensorDecision] = {}
    for role, tensor in recipe.tensors.items():
        if role.endswith("_bias") and not sizes.bias:
            continue
        full = _shape(role, tensor, sizes, recipe.call.quant_type, first, share)
        short = full if last == first else _shape(role, tensor, sizes, recipe.call.quant_type, last, share)
        order = _order(role, tensor, sizes, recipe.call.quant_type, full.logical)
        fill, tail = _fills(tensor, full)
        values = {
            "layout": tensor.layout,
            "layout_line": None,
            "logical_shape": full.logical,
            "physical_shape": full.physical,
            "passed_shape": _passed_shape(tensor, full, recipe.call.backend, book),
            "pad": full.pad,
            "fill": fill,
            "tail": tail,
            "dtype": _dtype(tensor.dtype, arch),
            "steps": steps_on(tensor.steps, arch),
            "short_shape": short.logical if short.logical != full.logical else None,
            "source_order": sizes.gate_up_order if order else None,
            "order": order,
            "rank0_only": tensor.rank0_only,
            "is_shuffled": tensor.is_shuffled,
            "default": tensor.default,
        }
        decisions[role] = unvalidated(TensorDecision, values)
    return decisions


def _passed_shape(tensor: TensorRecipe, shape: _Shape, backend: str, book: Book) -> tuple[int, ...] | None:
    """Return the shape in which the kernel takes an MX scale.

    None where that is the physical shape, and for other tensors.
    """
    if tensor.dtype != "e8m0" or len(shape.physical) != 3:
        return None
    layout = book.layout(tensor.layout)
    reader: BackendEntry | None = book.entries["backends"].get(backend)
    passed_as = book.layouts[layout.id].passed_as or (reader.mx_scales if reader else None)
    if passed_as is None:
        return None
    experts, rows, k = shape.physical
    if passed_as == "rows":
        return experts * rows, k
    tile = layout.pattern.row_tile
    return (experts, rows // tile, tile * k) if tile > 1 and rows % tile == 0 else None


def call_decision(recipe: Recipe, layer: MoELayer, tensors: Mapping[Role, TensorDecision]) -> CallDecision:
    """Return the call that goes with the tensors."""
    sizes, model, limit = layer.sizes, layer.model, layer.query.swiglu_limit
    on_input = bool(layer.query.router_weight_on_input)
    w13, w2, call = tensors["w13_weight"].pad, tensors["w2_weight"].pad, recipe.call
    situ = model if sizes.activation == "Situv2" else None
    values = {
        "gate_mode": call.gate_mode,
        "gate_mode_passed": call.passes_gate_mode(limit),
        "quant_type": call.quant_type,
        "activation": call.activation or sizes.activation,
        "hidden_pad": _pad_argument(w13.k, call.hidden_pad, sizes.tp),
        "intermediate_pad": _pad_argument(w2.k, call.intermediate_pad, sizes.tp),
        "bias": sizes.bias and call.bias == "passed",
        "function": (call.router_weight.function if on_input else None) or call.function,
        "backend": call.backend,
        "quant_dtype_a": call.quant_dtype_a,
        "expert_map": _expert_map(call.backend, layer.book) if sizes.ep > 1 else None,
        "swizzle_mx_scale": call.swizzle_mx_scale,
        "swiglu_limit": limit if call.swiglu_limit == "passed" else None,
        "swiglu_alpha": model.swiglu_alpha if model else None,
        "situ_beta": situ.situ_beta if situ else None,
        "situ_linear_beta": situ.situ_linear_beta if situ else None,
        "doweight_stage1": on_input and call.router_weight.by == "kernel",
        "weighted_by_caller": on_input and call.router_weight.by == "caller",
    }
    return unvalidated(CallDecision, values)


def _expert_map(backend: str, book: Book) -> str | None:
    """Return the kind of expert map that a backend takes; None where it is not known."""
    entry: BackendEntry | None = book.entries["backends"].get(backend)
    return entry.expert_map if entry else None


def steps_on(steps: tuple[Step, ...], arch: ArchEntry) -> tuple[Step, ...]:
    """Return the steps that apply on a GPU.

    ``fnuz`` applies only where its fp8 is e4m3fnuz.
    """
    if "fnuz" not in steps or arch.fp8 == "fp8_e4m3fnuz":
        return steps
    return tuple(step for step in steps if step != "fnuz")


class _Shape(NamedTuple):
    logical: tuple[int, ...]
    physical: tuple[int, ...]
    pad: Pad


def _shape(
    role: Role, tensor: TensorRecipe, sizes: LayerSizes, quant_type: QuantType, intermediate: int, share: int
) -> _Shape:
    """Return a tensor's shapes on a rank that loads ``intermediate`` of the ``share`` values of its buffer."""
    w13 = role.startswith("w13")
    halves = sizes.halves if w13 else 1
    rows, k = (intermediate, sizes.hidden) if w13 else (sizes.hidden, intermediate)
    all_rows, all_k = (share, sizes.hidden) if w13 else (sizes.hidden, share)
    experts = sizes.local_experts
    if role.endswith("_scale"):
        length = _scale_length(role, tensor, sizes.local_experts, quant_type)
        if length is not None:
            return _Shape((length,), (length,), _pad(0, 0))
        block = BLOCK_ROWS.get(quant_type, 1)
        rows, k = -(-rows // block), _groups(k, quant_type)
        all_rows, all_k = -(-all_rows // block), _groups(all_k, quant_type)
    padded_rows = _round_up(all_rows, tensor.pad.rows)
    if role.endswith("_bias"):
        shape, padded = (experts, halves * rows), (experts, halves * padded_rows)
        return _Shape(shape, padded, _pad(padded_rows - rows, 0))
    physical = _with_tail((experts, halves * padded_rows, _round_up(all_k, tensor.pad.k)), tensor.tail)
    return _Shape((experts, halves * rows, k), physical, _pad(padded_rows - rows, physical[-1] - k))


def _fills(tensor: TensorRecipe, shape: _Shape) -> tuple[int, TailFill | None]:
    """Return the byte in the pads, and the part of K's pad that AITER's function fills with another.

    Where only that part is padded its byte is the only one.
    """
    tail = tensor.tail
    if tail is None or tail.fill is None or len(shape.logical) != 3:
        return tensor.fill, None
    k = shape.logical[-1]
    own = _round_up(k, tensor.pad.k)
    if shape.physical[-1] == own:
        return tensor.fill, None
    if own == k and not shape.pad.rows:
        return tail.fill, None
    if tail.fill == tensor.fill:
        return tensor.fill, None
    return tensor.fill, unvalidated(TailFill, {"first_k": own, "fill": tail.fill})


@lru_cache(maxsize=1024)
def _pad(rows: int, k: int) -> Pad:
    return unvalidated(Pad, {"rows": rows, "k": k})


def _scale_length(role: Role, tensor: TensorRecipe, experts: int, quant_type: QuantType) -> int | None:
    """Return the length of a scale that has no rows; None for others.

    That is an input's scale (one number after ``reduce_max``), or a whole tensor's.
    """
    if role.endswith("_input_scale"):
        return 1 if "reduce_max" in tensor.steps else experts
    return experts if quant_type == "per_Tensor" else None


def _groups(k: int, quant_type: QuantType) -> int:
    """Return K of a scale: groups, or one number for a whole row."""
    return 1 if quant_type == "per_Token" else -(-k // GROUP.get(quant_type, 1))


def _with_tail(shape: tuple[int, int, int], tail: Tail | None) -> tuple[int, ...]:
    """Pad a scale, flattened over its experts, at its end.

    The result is two-dimensional; the shape is unchanged where it divides.
    """
    experts, rows, k = shape
    flat = (experts * rows, k)
    padded = (_round_up(flat[0], tail.rows), _round_up(k, tail.k)) if tail else flat
    return shape if padded == flat else padded


def _order(
    role: Role, tensor: TensorRecipe, sizes: LayerSizes, quant_type: QuantType, shape: tuple[int, ...]
) -> RowOrder | None:
    """Return the laid-out row order; None without gate and up rows."""
    if not role.startswith("w13") or not sizes.gated or len(shape) == 1:
        return None
    if role.endswith("_scale") and quant_type in BLOCK_ROWS and "GUGU" in (sizes.gate_up_order, tensor.order):
        text = f"GUGU rows: a scale block of {BLOCK_ROWS[quant_type]} rows would hold rows of gate and up"
        raise QueryError([FieldProblem("gate_up_order", text, ("GGUU",))])
    return tensor.order


def _round_up(size: int, rule: PadRule) -> int:
    if rule == 1:
        return size
    multiple = multiple_for(rule, size)
    return -(-size // multiple) * multiple


def _pad_argument(pad: int, argument: PadArgument, tp: int) -> int:
    if not argument.passed:
        return 0
    rounded = pad // argument.round_down * argument.round_down
    return rounded * (argument.times_at_tp1 if tp == 1 else 1)


def _dtype(dtype: TensorDtype, arch: ArchEntry) -> TensorDtype:
    if dtype != "fp8":
        return dtype
    if arch.fp8 is None:
        raise LayoutError(f"{arch.id} has no fp8")
    return arch.fp8

"""Access to one expert of laid-out storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from preshuffle.layouts.loader.geometry import Geometry
from preshuffle.layouts.loader.single import layout_from
from preshuffle.layouts.loader.steps import apply_steps_to_part
from preshuffle.layouts.loader.target import RoleTensors, Target
from preshuffle.layouts.moves import inference_writable, lay_out
from preshuffle.layouts.stamps import (
    Loss,
    Stamp,
    check_known,
    check_role,
    check_writable,
    exclusive,
    finish_write,
    lend,
    prepare_write,
    put_stamp,
    soundness_of,
    stamp_of,
    tensors_overlap,
)
from preshuffle.layouts.tensors import FLOAT_DTYPES, as_bytes, survives_cast, untraced
from preshuffle.registry import LayoutError, PlainView
from preshuffle.registry.algebra.copy_plan import plan_part
from preshuffle.registry.base.words import Role


@untraced
def write_expert(
    target: Target, expert: int, role: Role, plain_rows: torch.Tensor, *, first_row: int = 0, first_k: int = 0
) -> None:
    """Write one expert's plain rows into laid-out storage.

    The tensor's address and its pads stay.

    Args:
        target: laid-out, stamped tensors.
        expert: which expert of this rank.
        role: which tensor.
        plain_rows: ``[rows, K]`` (a bias ``[rows]``, a scale of one number for each expert ``[]`` or ``[1]``) in the
            checkpoint's row order: the whole expert, or a part of it.
        first_row: where the part begins, in the checkpoint's rows.
        first_k: where the part begins along K, in torch's elements.

    Raises:
        LayoutError: the tensor is not laid out, or the part is not inside the expert. Nothing is written then.
    """
    tensors = RoleTensors(target)
    with exclusive(target, tensors.values):
        _write_expert(tensors, expert, role, plain_rows, first_row, first_k)


def _write_expert(
    tensors: RoleTensors, expert: int, role: Role, plain_rows: torch.Tensor, first_row: int, first_k: int
) -> None:
    tensor, stamp = _laid_out(tensors, role, prepare_write)
    sound = soundness_of(tensor)
    if stamp.aiter_bytes:
        raise LayoutError(f"{role}: AITER's bytes differ from layout {stamp.layout}; reload the layer to change it")
    if not isinstance(plain_rows, torch.Tensor):
        raise LayoutError(f"{role}: rows are a {type(plain_rows).__name__}; valid: a tensor")
    rows = plain_rows.detach()
    if rows.dim() < 2 and len(stamp.shape) <= 1 + rows.dim():
        rows = rows.reshape(-1, 1)
    if rows.dim() != 2:
        raise LayoutError(f"{role}: rows of shape {tuple(plain_rows.shape)}; valid: [rows, K] of one expert")
    check_writable(role, tensor)
    exact = tensor.dtype not in FLOAT_DTYPES or survives_cast(rows, tensor.dtype, stamp.source_dtype)
    rows = _convert_rows(rows, tensor, role)
    live = (*stamp.shape[1:], 1, 1)[:2]
    _check_integers(expert=expert, first_row=first_row, first_k=first_k)
    inside = 0 <= expert < stamp.shape[0] and min(first_row, first_k, *(size - 1 for size in rows.shape)) >= 0
    if not inside or first_row + rows.shape[0] > live[0] or first_k + rows.shape[1] > live[1]:
        part = f"rows {first_row}..{first_row + rows.shape[0] - 1}, K {first_k}..{first_k + rows.shape[1] - 1}"
        raise LayoutError(f"{role}: {part} of expert {expert} are not inside {stamp.shape}")
    rows, lost = apply_steps_to_part(role, stamp.steps, rows)
    rows = rows.contiguous()
    plain = as_bytes(rows.clone() if tensors_overlap(rows, tensor) else rows)
    item = tensor.element_size()
    geometry, stage = Geometry.of(stamp, item), Geometry.staged(stamp, item)
    views: Iterator[PlainView] = part_views(stage or geometry, expert, first_row, first_k * item, rows)
    if stage is not None:
        views = (_in_all_experts(stage, view) for view in views)
    plans = [plan_part(geometry.bound(geometry.experts), view, geometry.halves) for view in views]
    put_stamp(tensor, replace(stamp, state="broken"))
    with inference_writable(tensor):
        for plan in plans:
            lay_out(plan, plain, as_bytes(tensor.detach()), stamp.fill)
    cut: tuple[Loss, ...] = () if exact else ("cast",)
    finish_write(tensor, replace(stamp, lost=tuple(dict.fromkeys((*stamp.lost, *lost, *cut)))), sound)


@untraced
def expert_view(target: Target, role: Role, expert: int) -> torch.Tensor:
    """Return a view of one expert's laid-out bytes ``[rows, K]``.

    No byte moves: it is for migration, of a flat scale, too. What is written through the view, or a view of it, is
    taken for an expert's laid-out bytes; what is written in another way is not.

    Of a bias the view is ``[rows]``, of a scale of one number for each expert that number.

    Raises:
        LayoutError: the tensor is not laid out, there is no such expert, or its bytes are no slice: a scale whose rows
            do not fill a tile shares tiles with the next expert, and some scales are one number for all.
    """
    tensor, stamp = _laid_out(RoleTensors(target), role, stamp_of)
    _check_integers(expert=expert)
    if not 0 <= expert < stamp.shape[0]:
        raise LayoutError(f"{role}: expert {expert}; valid: 0..{stamp.shape[0] - 1}")
    if "reduce_max" in stamp.steps:
        raise LayoutError(f"{role}: all experts share one number")
    if tensor.dim() == len(stamp.shape) == 1:
        return lend(tensor, expert, expert + 1)[0]
    tile = layout_from(stamp).pattern.row_tile
    flat = tensor.dim() != len(stamp.shape)
    tail = len(stamp.physical_shape) != len(stamp.shape)
    rows = stamp.flat_rows or (stamp.physical_shape[0] // stamp.shape[0] if tail else stamp.physical_shape[1])
    if rows % tile:
        raise LayoutError(
            f"{role}: {rows} rows do not fill tiles of {tile}, so an expert's bytes are no slice of their own"
        )
    first, past = (expert * rows, (expert + 1) * rows) if flat else (expert, expert + 1)
    view = lend(tensor, first, past)
    return view if flat else view[0]


def _check_integers(**numbers: int) -> None:
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int):
            raise LayoutError(f"{name} = {number!r}; valid: a whole number")


def _laid_out(
    tensors: RoleTensors, role: Role, lookup: Callable[[torch.Tensor], Stamp | None]
) -> tuple[torch.Tensor, Stamp]:
    if role not in tensors.names:
        raise LayoutError(f"the target has no {role}; it has: {', '.join(tensors.names)}")
    tensor = tensors[role]
    stamp = lookup(tensor)
    if stamp is not None:
        check_known(role, tensor, stamp)
    if stamp is None or stamp.state != "applied":
        raise LayoutError(f"{role} is not laid out ({stamp.state if stamp else 'no stamp'})")
    check_role(role, stamp)
    if tuple(tensor.shape) != stamp.tensor_shape:
        shape = tuple(tensor.shape)
        raise LayoutError(f"{role} of shape {shape} is a part of what was laid out; valid: {stamp.tensor_shape}")
    return tensor, stamp


def _convert_rows(rows: torch.Tensor, tensor: torch.Tensor, role: Role) -> torch.Tensor:
    """Convert rows to the stored dtype.

    A float is cast; dtypes of one byte are only renamed.
    """
    if rows.device != tensor.device:
        raise LayoutError(f"{role}: rows on {rows.device}, the tensor on {tensor.device}")
    if rows.dtype in FLOAT_DTYPES and tensor.dtype in FLOAT_DTYPES:
        return rows.to(tensor.dtype)
    if rows.element_size() != tensor.element_size() or rows.dtype in FLOAT_DTYPES:
        raise LayoutError(f"{role}: rows are {rows.dtype}, the tensor is {tensor.dtype}")
    return rows


def part_views(
    geometry: Geometry, expert: int, first_row: int, first_k: int, rows: torch.Tensor
) -> Iterator[PlainView]:
    """Yield a part of an expert as a view per half.

    Strides are in bytes.

    Args:
        geometry: of the tensor.
        expert: which one.
        first_row: where the part begins, in the checkpoint's rows.
        first_k: where the part begins along K, in bytes.
        rows: ``[rows, K]`` of the part; only its shape and dtype count.
    """
    count, row = rows.shape[0], rows.shape[1] * rows.element_size()
    for half in range(geometry.halves):
        if geometry.alternating:
            begin, end = -((half - first_row) // 2), -((half - first_row - count) // 2)
            start, step = 2 * begin + half - first_row, 2
        else:
            base = half * geometry.live_rows
            begin = max(first_row - base, 0)
            end = min(first_row + count - base, geometry.live_rows)
            start, step = base + begin - first_row, 1
        if begin < end:
            place = (expert, half, begin, first_k)
            yield PlainView(1, 1, end - begin, row, 0, 0, step * row, start * row, place)


def _in_all_experts(stage: Geometry, view: PlainView) -> PlainView:
    """Move a view of one expert to the rows of all experts."""
    expert, half, first, k = view.first
    row = (expert * stage.halves + half) * stage.rows + first
    return replace(view, first=(0, 0, row, k))

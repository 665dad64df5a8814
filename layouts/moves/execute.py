"""Execution of copy plans, including the fill of pads.

Each box runs on the executor of its device.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from math import gcd
from typing import Final

import torch

from preshuffle.layouts.moves.executor_torch import DTYPES, run_move
from preshuffle.layouts.moves.move import Direction, Move, alignment_of, move_of
from preshuffle.registry.algebra.copy_plan import Box, CopyPlan

_SMALL: Final = 128 << 20


def inference_writable(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Allow writes to a tensor created in inference mode.

    A context manager: torch refuses such writes outside of inference mode.
    """
    return torch.inference_mode(torch.is_inference_mode_enabled() or tensor.is_inference())


def lay_out(plan: CopyPlan, plain: torch.Tensor, laid: torch.Tensor, fill: int) -> None:
    """Copy plain bytes to their laid-out places; fill the pads.

    Args:
        plan: what goes where.
        plain: flat uint8 bytes, the source.
        laid: flat uint8 bytes, the target; must not overlap ``plain``.
        fill: the byte that pads get.
    """
    if plan.padded is not None and _on_one_gpu(plain, laid):
        from preshuffle.layouts.moves.padded_triton import run_padded

        if run_padded(plan, plain, laid, fill):
            return
    fill_first = plan.filled and laid.numel() <= _SMALL
    if fill_first:  # one fill of everything beats several of strided pieces
        laid.fill_(fill)
    for box in plan.copies:
        _run(box, "lay out", plain, laid)
    for box in () if fill_first else plan.fills:
        fill_box(box, laid, fill)


def lay_out_cast(plan: CopyPlan, plain: torch.Tensor, laid: torch.Tensor, fill: int) -> None:
    """Cast values while they are copied to their places; fill the pads.

    Args:
        plan: what goes where, in bytes of the target's dtype.
        plain: flat values, the source.
        laid: flat values of another dtype, the target.
        fill: the byte that pads get.
    """
    if plan.fills:
        laid.view(torch.uint8).fill_(fill)
    first_source, first_target = int(plain.storage_offset()), int(laid.storage_offset())
    for box in plan.copies:
        move = move_of(box, "lay out", laid.element_size())
        target = laid.as_strided(move.sizes, move.target, first_target + move.target_offset)
        target.copy_(plain.as_strided(move.sizes, move.source, first_source + move.source_offset))


def can_cast(plan: CopyPlan, item: int) -> bool:
    """Return whether a plan moves whole values of so many bytes."""
    return all(move_of(box, "lay out", item).unit == item for box in plan.copies)


def take_back(plan: CopyPlan, laid: torch.Tensor, plain: torch.Tensor) -> None:
    """Copy laid-out bytes back to plain; skip the pads."""
    for box in plan.copies:
        _run(box, "take back", laid, plain)


def fill_box(box: Box, laid: torch.Tensor, fill: int) -> None:
    """Fill a box on the laid-out side with one byte."""
    sizes, strides, offset = box.sizes, box.laid_strides, box.laid_offset
    unit = 1
    if sizes and strides[-1] == 1:
        unit = gcd(8, sizes[-1], offset, alignment_of(laid), *strides[:-1])
    if unit > 1:
        sizes = (*sizes[:-1], sizes[-1] // unit)
        strides = (*(stride // unit for stride in strides[:-1]), 1)
    wide = laid[: laid.numel() // unit * unit].view(DTYPES[unit])
    value = int.from_bytes(bytes([fill]) * unit, "little", signed=unit > 1)
    wide.as_strided(sizes, strides, wide.storage_offset() + offset // unit).fill_(value)


def _on_one_gpu(source: torch.Tensor, target: torch.Tensor) -> bool:
    return source.device.type == "cuda" and target.device == source.device


def _torch_suffices(move: Move) -> bool:
    """Return whether torch's copy is as fast as our kernel.

    In wide units it is, and it starts sooner.
    """
    return move.unit == 16 and move.nbytes <= _SMALL


def _run(box: Box, direction: Direction, source: torch.Tensor, target: torch.Tensor) -> None:
    move: Move = move_of(box, direction, alignment_of(source, target))
    if _on_one_gpu(source, target) and not _torch_suffices(move):
        from preshuffle.layouts.moves.executor_triton import run_move as run_on_gpu

        run_on_gpu(move, source, target)
    else:
        run_move(move, source, target)

"""Moves as numpy's strided copies, on the calling thread alone.

A unit may begin at any address: mapped files align their tensors to eight bytes, torch's widest units need sixteen.
"""

from __future__ import annotations

import numpy as np
import torch

from preshuffle.layouts.moves.move import move_of
from preshuffle.registry.algebra.copy_plan import CopyPlan


def lay_out_on_thread(plan: CopyPlan, plain: torch.Tensor, laid: torch.Tensor) -> None:
    """Copy plain bytes to their laid-out places; leave the pads.

    Args:
        plan: what goes where.
        plain: flat uint8 bytes in the CPU's memory, the source.
        laid: flat uint8 bytes, the target; must not overlap ``plain``.
    """
    source, target = plain.numpy(), laid.numpy()
    for box in plan.copies:
        move = move_of(box, "lay out")
        kind, unit = np.dtype(f"V{move.unit}"), move.unit
        strides = [tuple(stride * unit for stride in side) for side in (move.source, move.target)]
        np.copyto(
            np.ndarray(move.sizes, kind, target, move.target_offset * unit, strides[1]),
            np.ndarray(move.sizes, kind, source, move.source_offset * unit, strides[0]),
        )

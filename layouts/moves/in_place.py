"""In-place permutation of a buffer, in bands or through scratch.

Scratch is bounded; a GPU goes in bands where the move allows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from preshuffle.layouts.moves.axes import WORD
from preshuffle.layouts.moves.execute import fill_box, inference_writable, lay_out, take_back
from preshuffle.layouts.moves.executor_torch import prepare_move
from preshuffle.layouts.moves.move import Direction, Move, alignment_of, move_of
from preshuffle.registry.algebra.copy_plan import CopyPlan

SCRATCH_BYTES = 64 << 20
"""Most bytes that an in-place move holds beside the buffer, at least one expert's."""


@dataclass(frozen=True, slots=True)
class InPlace:
    """In-place move of a buffer of experts.

    The experts lie one behind the other.

    Attributes:
        plan: from a number of experts to their plan; plain and laid-out bytes of an expert take the same room.
        experts: in the buffer.
        expert_bytes: of one expert.
        plan_with_pads: the same, as if pads were live; None where the plain bytes have none.
    """

    plan: Callable[[int], CopyPlan]
    experts: int
    expert_bytes: int
    plan_with_pads: Callable[[int], CopyPlan] | None = None

    def chunk(self, scratch_bytes: int) -> int:
        """Return how many experts go through scratch at once."""
        return max(1, min(self.experts, scratch_bytes // self.expert_bytes))

    def scratch_for(self, data: torch.Tensor, scratch_bytes: int) -> int:
        """Return the scratch bytes that the move needs.

        None where it goes in bands, a little where bands are joined.
        """
        move = _band_move(self._moved(data)(self.experts), data)
        if move is not None:
            from preshuffle.layouts.moves.executor_triton import scratch_in_place

            size = scratch_in_place(move, data.device, scratch_bytes)
            if size is not None:
                return size
        return self.chunk(scratch_bytes) * self.expert_bytes

    def lay_out(self, data: torch.Tensor, scratch: torch.Tensor, fill: int) -> None:
        """Turn plain bytes into laid-out ones; fill the pads."""
        with inference_writable(data):
            self._lay_out(data, scratch, fill)

    def _lay_out(self, data: torch.Tensor, scratch: torch.Tensor, fill: int) -> None:
        moved = self._moved(data)
        in_bands = _run_bands(moved(self.experts), data, scratch)
        if not in_bands:
            self._move_through_scratch(data, scratch, "lay out", fill, moved)
        for box in self.plan(self.experts).fills if in_bands or moved is not self.plan else ():
            fill_box(box, data, fill)

    def _moved(self, data: torch.Tensor) -> Callable[[int], CopyPlan]:
        """Return the plan to run: a GPU moves pads along, in wider moves."""
        on_gpu = data.device.type == "cuda"
        return self.plan_with_pads if on_gpu and self.plan_with_pads is not None else self.plan

    def take_back(self, data: torch.Tensor, scratch: torch.Tensor) -> None:
        """Turn laid-out bytes into plain ones; zero the pads' room."""
        with inference_writable(data):
            self._move_through_scratch(data, scratch, "take back", 0, self.plan)

    def _move_through_scratch(
        self,
        data: torch.Tensor,
        scratch: torch.Tensor,
        direction: Direction,
        fill: int,
        planned: Callable[[int], CopyPlan],
    ) -> None:
        size = self.expert_bytes
        count = scratch.numel() // size
        steady = self._prepare_chunk(data, scratch, planned(count), direction)
        for first in range(0, self.experts, count):
            now = min(count, self.experts - first)
            piece = data[first * size : (first + now) * size]
            copy = scratch[: now * size].copy_(piece)
            if direction == "take back":
                piece.zero_()
            if steady is not None and now == count:
                unit, run = steady
                run(0, first * size // unit)
            elif direction == "lay out":
                lay_out(planned(now), copy, piece, fill)
            else:
                take_back(planned(now), copy, piece)

    def _prepare_chunk(
        self, data: torch.Tensor, scratch: torch.Tensor, plan: CopyPlan, direction: Direction
    ) -> tuple[int, Callable[[int, int], None]] | None:
        """Prepare one move for all chunks of the same size.

        None unless the chunk is a single move in units of 16 bytes without pads.
        """
        if len(plan.copies) != 1 or plan.fills:
            return None
        move = move_of(plan.copies[0], direction, alignment_of(data, scratch))
        if move.unit != 16 or self.expert_bytes % move.unit:
            return None
        return move.unit, prepare_move(move, scratch, data)


def _band_move(plan: CopyPlan, data: torch.Tensor) -> Move | None:
    """Return a GPU buffer's single move, if in words.

    None where the buffer is not on a GPU, or the move is not a single one.
    """
    alignment = alignment_of(data)
    if data.device.type != "cuda" or len(plan.copies) != 1 or alignment % WORD:
        return None
    return move_of(plan.copies[0], "lay out", alignment)


def _run_bands(plan: CopyPlan, data: torch.Tensor, scratch: torch.Tensor) -> bool:
    move = _band_move(plan, data)
    if move is None:
        return False
    from preshuffle.layouts.moves.executor_triton import run_in_place

    return run_in_place(move, data, scratch)

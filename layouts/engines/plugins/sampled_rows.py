"""Sampled rows of a layer, copied before and compared after its conversion.

Each piece is all of K of up to 32 neighbouring rows (32 KiB), at the first and the last row, where up begins, and
between: of the first, the last, and two other experts. A wrong order of bytes moves nearly all bytes of each of them.
What a sample can miss: a tensor that is right at these places and wrong elsewhere (other experts exchanged, some rows
not loaded), and pads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

from preshuffle.layouts.engines.plugins.sampled_experts import ExpertComparison, form_of, obstacle
from preshuffle.layouts.loader import JobPlan, RoleTensors, Target, plan_job, read_part
from preshuffle.layouts.tensors import needs_cast
from preshuffle.registry import Decision, LayoutError, TensorDecision
from preshuffle.registry.base.words import Role

ROWS: Final = 32
"""Most rows of a piece."""
PIECE_BYTES: Final = 1 << 15
"""Most bytes of a piece, but for one row: torch gives so many to no second thread, which would be waited for."""
SMALL: Final = 1 << 20
"""An expert of up to so many bytes is compared as a whole, which takes no longer."""
FRACTION: Final = 256
"""A tensor's pieces take at most its bytes divided by this, or one row each."""


@dataclass(frozen=True, slots=True)
class RowPiece:
    """Some plain rows of one expert.

    ``[rows, K]``, in the dtype that is laid out.
    """

    expert: int
    first_row: int
    rows: torch.Tensor


@dataclass(frozen=True, slots=True)
class RowSamples:
    """Copies of some rows of a layer, before the engine converts it.

    Attributes:
        plans: how each tensor must lie, by role.
        pieces: its rows as the layer had them.
        skipped: why a tensor has no sample.
    """

    decision: Decision
    plans: Mapping[Role, JobPlan]
    pieces: Mapping[Role, tuple[RowPiece, ...]]
    skipped: Mapping[Role, str]


@torch.no_grad()
def take_rows(layer: Target, decision: Decision, *, last_rank: bool = False) -> RowSamples | None:
    """Copy some rows of each comparable tensor.

    None where whole experts have to be compared: a tensor's steps change more than its layout and its dtype, or an
    expert is small.

    Args:
        layer: with its plain weights.
        decision: how they must lie afterwards.
        last_rank: the tensors are those of the last tensor-parallel rank, which may have less.
    """
    tensors = RoleTensors(layer)
    nbytes = sum(tensors[role].nbytes for role in tensors.present(decision.tensors))
    if nbytes <= SMALL * max(decided.logical_shape[0] for decided in decision.tensors.values()):
        return None
    skipped = {role: why for role, decided in decision.tensors.items() if (why := obstacle(role, decided, tensors))}
    if any(decided.steps for role, decided in decision.tensors.items() if role not in skipped):
        return None
    plans: dict[Role, JobPlan] = {}
    pieces: dict[Role, tuple[RowPiece, ...]] = {}
    for role, decided in decision.tensors.items():
        if role in skipped:
            continue
        tensor = tensors[role].detach()
        try:
            plan = _plan(role, decided, decision, tensor, last_rank)
        except LayoutError as error:
            skipped[role] = str(error)
            continue
        if plan.stage is not None or not tensor.is_contiguous():
            skipped[role] = "its rows do not lie behind each other"
            continue
        plans[role], pieces[role] = plan, tuple(_pieces(plan, tensor))
    return RowSamples(decision, plans, pieces, skipped)


@torch.no_grad()
def compare_rows(layer: Target, samples: RowSamples) -> tuple[ExpertComparison, ...]:
    """Compare a converted layer with rows that were copied before.

    AITER's tags, dtypes, sizes and the bytes at the rows' decided places are compared.
    """
    compared = [ExpertComparison(role, "not compared", (why,)) for role, why in samples.skipped.items()]
    tensors = RoleTensors(layer)
    for role, plan in samples.plans.items():
        if role not in tensors.names:
            why = "the converted layer has no tensor of this role"
            compared.append(ExpertComparison(role, "not compared", (why,)))
            continue
        found, decided = tensors[role].detach(), samples.decision.tensors[role]
        nbytes = plan.copies.nbytes
        form = form_of(role, decided, plan.dtype, (nbytes, plan.stamp.tensor_shape), found, tensors[role])
        compared.append(_compared(form, role, plan, found, samples) if isinstance(form, list) else form)
    return tuple(compared)


def _plan(role: Role, decided: TensorDecision, decision: Decision, tensor: torch.Tensor, last_rank: bool) -> JobPlan:
    form = (tensor.shape, tensor.dtype)
    return plan_job(role, decided, decision.recipe, decision.decision_digest, form, form, last_rank)


def _pieces(plan: JobPlan, tensor: torch.Tensor) -> list[RowPiece]:
    """Copy a tensor's pieces."""
    geometry = plan.geometry
    count, half = geometry.halves * geometry.live_rows, geometry.live_rows
    by_expert = tensor.view(geometry.experts, -1, tensor.numel() // geometry.experts // _rows_of(plan))
    row_bytes = by_expert.shape[2] * tensor.element_size()
    starts = (0, half if geometry.halves == 2 else count // 2, count, count // 3)
    experts = (0, geometry.experts // 2, geometry.experts - 1, geometry.experts // 3)
    most = min(PIECE_BYTES, tensor.nbytes // FRACTION // len(starts))
    rows = max(1, min(ROWS, half, most // row_bytes))
    found: list[RowPiece] = []
    for expert, start in dict.fromkeys(zip(experts, starts, strict=True)):
        first = min(start, count - rows)
        if not geometry.alternating and first // half != (first + rows - 1) // half:
            first = half - rows  # a piece of one half
        place = _row_in_buffer(plan, first)
        live = by_expert[expert, place : place + rows, : geometry.live_k // plan.dtype.itemsize]
        # as bytes: not every dtype of four or eight bits can be copied
        copied = live.to(plan.dtype) if needs_cast(tensor.dtype, plan.dtype) else live.view(torch.uint8).clone()
        found.append(RowPiece(expert, first, copied.contiguous()))
    return found


def _rows_of(plan: JobPlan) -> int:
    """Return the rows of one expert in the plain tensor."""
    geometry = plan.geometry
    return geometry.halves * (geometry.rows if geometry.padded_source else geometry.live_rows)


def _row_in_buffer(plan: JobPlan, row: int) -> int:
    """Return where a row of the checkpoint lies in an expert's plain rows."""
    geometry = plan.geometry
    if not geometry.padded_source or geometry.alternating:
        return row
    half, within = divmod(row, geometry.live_rows)
    return half * geometry.rows + within


def _compared(
    reasons: list[str], role: Role, plan: JobPlan, found: torch.Tensor, samples: RowSamples
) -> ExpertComparison:
    laid = found.view(torch.uint8).reshape(-1)
    pieces = samples.pieces[role]
    rows = torch.cat([piece.rows.view(torch.uint8).view(-1) for piece in pieces])
    there = torch.cat(
        [read_part(plan, laid, piece.expert, piece.first_row, len(piece.rows)).view(-1) for piece in pieces]
    )
    words = torch.int64 if rows.numel() % 8 == 0 else torch.uint8  # of eight bytes torch takes no second thread
    if not torch.equal(there.view(words), rows.view(words)):  # a GPU is waited for once
        different, total = int((there != rows).sum()), rows.numel()
        experts = tuple(sorted({piece.expert for piece in pieces}))
        reasons.append(f"{different} of {total} bytes of sampled rows of experts {experts} differ")
        return ExpertComparison(role, "differs", tuple(reasons), same_bytes=False)
    return ExpertComparison(role, "differs" if reasons else "equal", tuple(reasons), same_bytes=True)

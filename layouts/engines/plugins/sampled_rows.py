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
_ALIGNED: Final = 16
"""Pieces lie at multiples of so many bytes."""
FRACTION: Final = 256
"""A tensor's pieces take at most its bytes divided by this, or one row each."""


@dataclass(frozen=True, slots=True)
class RowPiece:
    """Some plain rows of one expert, copied into the device's buffer.

    Attributes:
        begin: of the copied bytes in the buffer; they are of the dtype that is laid out.
        nbytes: their number.
    """

    expert: int
    first_row: int
    begin: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class RowSamples:
    """Copies of some rows of a layer, before the engine converts it.

    Attributes:
        plans: how each tensor must lie, by role.
        pieces: its rows as the layer had them.
        devices: where each tensor was.
        buffers: the copied rows of each device, one piece behind the other, zeros between them.
        skipped: why a tensor has no sample.
    """

    decision: Decision
    plans: Mapping[Role, JobPlan]
    pieces: Mapping[Role, tuple[RowPiece, ...]]
    devices: Mapping[Role, torch.device]
    buffers: Mapping[torch.device, torch.Tensor]
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
    cuts: dict[Role, list[_Cut]] = {}
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
        plans[role], cuts[role] = plan, _cuts(plan, tensor)
    return _copied(decision, plans, cuts, skipped)


@torch.no_grad()
def compare_rows(layer: Target, samples: RowSamples) -> tuple[ExpertComparison, ...]:
    """Compare a converted layer with rows that were copied before.

    AITER's tags, dtypes, sizes and the bytes at the rows' decided places are compared. A GPU is waited for once, where
    nothing differs.
    """
    compared = {role: ExpertComparison(role, "not compared", (why,)) for role, why in samples.skipped.items()}
    tensors = RoleTensors(layer)
    there = {device: torch.zeros_like(buffer) for device, buffer in samples.buffers.items()}
    reasons: dict[Role, list[str]] = {}
    for role, plan in samples.plans.items():
        if role not in tensors.names:
            why = "the converted layer has no tensor of this role"
            compared[role] = ExpertComparison(role, "not compared", (why,))
            continue
        found, decided = tensors[role].detach(), samples.decision.tensors[role]
        nbytes = plan.copies.nbytes
        form = form_of(role, decided, plan.dtype, (nbytes, plan.stamp.tensor_shape), found, tensors[role])
        if not isinstance(form, list):
            compared[role] = form
            continue
        reasons[role] = form
        _read(plan, found.to(samples.devices[role]), samples.pieces[role], there[samples.devices[role]])
    same = {
        device: device.type != "cpu" and torch.equal(buffer.view(torch.int64), there[device].view(torch.int64))
        for device, buffer in samples.buffers.items()
    }
    for role, form in reasons.items():
        device = samples.devices[role]
        pair = None if same[device] else (samples.buffers[device], there[device])
        compared[role] = _compared(form, role, samples.pieces[role], pair)
    return tuple(compared[role] for role in (*samples.skipped, *samples.plans))


def _read(plan: JobPlan, found: torch.Tensor, pieces: tuple[RowPiece, ...], there: torch.Tensor) -> None:
    """Read pieces from a laid-out tensor into their places of a buffer."""
    laid = found.view(torch.uint8).reshape(-1)
    for piece in pieces:
        read_part(plan, laid, piece.expert, piece.first_row, there[piece.begin : piece.begin + piece.nbytes])


def _plan(role: Role, decided: TensorDecision, decision: Decision, tensor: torch.Tensor, last_rank: bool) -> JobPlan:
    form = (tensor.shape, tensor.dtype)
    return plan_job(role, decided, decision.recipe, decision.decision_digest, form, form, last_rank)


@dataclass(frozen=True, slots=True)
class _Cut:
    """Rows of one expert that are to be copied, ``[rows, K]``, and the dtype of the copy."""

    expert: int
    first_row: int
    live: torch.Tensor
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return self.live.numel() * self.dtype.itemsize


def _copied(
    decision: Decision, plans: Mapping[Role, JobPlan], cuts: Mapping[Role, list[_Cut]], skipped: Mapping[Role, str]
) -> RowSamples:
    """Copy rows into one buffer of each device."""
    devices = {role: some[0].live.device for role, some in cuts.items()}
    sizes = dict.fromkeys(devices.values(), 0)
    pieces: dict[Role, tuple[RowPiece, ...]] = {}
    for role, some in cuts.items():
        placed: list[RowPiece] = []
        for cut in some:
            placed.append(RowPiece(cut.expert, cut.first_row, sizes[devices[role]], cut.nbytes))
            sizes[devices[role]] += -(-cut.nbytes // _ALIGNED) * _ALIGNED
        pieces[role] = tuple(placed)
    buffers = {device: torch.zeros(size, dtype=torch.uint8, device=device) for device, size in sizes.items()}
    for role, some in cuts.items():
        for cut, piece in zip(some, pieces[role], strict=True):
            place = buffers[devices[role]][piece.begin : piece.begin + piece.nbytes]
            place.view(cut.dtype).view(cut.live.shape).copy_(cut.live)
    return RowSamples(decision, plans, pieces, devices, buffers, skipped)


def _cuts(plan: JobPlan, tensor: torch.Tensor) -> list[_Cut]:
    """Choose a tensor's pieces."""
    geometry = plan.geometry
    count, half = geometry.halves * geometry.live_rows, geometry.live_rows
    by_expert = tensor.view(geometry.experts, -1, tensor.numel() // geometry.experts // _rows_of(plan))
    row_bytes = by_expert.shape[2] * tensor.element_size()
    starts = (0, half if geometry.halves == 2 else count // 2, count, count // 3)
    experts = (0, geometry.experts // 2, geometry.experts - 1, geometry.experts // 3)
    most = min(PIECE_BYTES, tensor.nbytes // FRACTION // len(starts))
    rows = max(1, min(ROWS, half, most // row_bytes))
    found: list[_Cut] = []
    for expert, start in dict.fromkeys(zip(experts, starts, strict=True)):
        first = min(start, count - rows)
        if not geometry.alternating and first // half != (first + rows - 1) // half:
            first = half - rows  # a piece of one half
        place = _row_in_buffer(plan, first)
        live = by_expert[expert, place : place + rows, : geometry.live_k // plan.dtype.itemsize]
        # as bytes: not every dtype of four or eight bits can be copied
        cast = needs_cast(tensor.dtype, plan.dtype)
        found.append(_Cut(expert, first, live if cast else live.view(torch.uint8), plan.dtype if cast else torch.uint8))
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
    reasons: list[str], role: Role, pieces: tuple[RowPiece, ...], pair: tuple[torch.Tensor, torch.Tensor] | None
) -> ExpertComparison:
    """Compare one tensor's pieces in two buffers; None where all of them are known to be equal."""
    if pair is not None:
        begin, end = pieces[0].begin, -(-(pieces[-1].begin + pieces[-1].nbytes) // _ALIGNED) * _ALIGNED
        rows, there = (buffer[begin:end] for buffer in pair)
        # of words of eight bytes torch takes no second thread
        if not torch.equal(there.view(torch.int64), rows.view(torch.int64)):
            different, total = int((there != rows).sum()), sum(piece.nbytes for piece in pieces)
            experts = tuple(sorted({piece.expert for piece in pieces}))
            reasons.append(f"{different} of {total} bytes of sampled rows of experts {experts} differ")
            return ExpertComparison(role, "differs", tuple(reasons), same_bytes=False)
    return ExpertComparison(role, "differs" if reasons else "equal", tuple(reasons), same_bytes=True)

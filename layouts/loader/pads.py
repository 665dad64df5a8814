"""Pads of buffers in the physical shape: read before they are overwritten.

Only weights and biases are judged: every engine leaves their pads zero, so anything else there was loaded, and the
loader's shard is not the decision's. A scale's pad proves nothing: engines fill it with 0, 1 or 127, some with one byte
along K and another at the tail, and it multiplies weights of a pad, which are judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch

from preshuffle.layouts.loader.job import Job
from preshuffle.layouts.stamps import Stamp, stamp_of
from preshuffle.registry import LayoutError
from preshuffle.registry.base.words import Role

Pads = Literal["refuse", "overwrite"]
PADS: Final[tuple[Pads, ...]] = ("refuse", "overwrite")

_WORD: Final = 8
_ADVICE: Final = (
    "nothing was changed. Either the loader's shard is not the decision's: compare the rows that it loaded with the "
    "decision's logical_shape (another tp, shards of whole blocks or of the padded size, last_rank) and apply the "
    "decision of that shard; or the buffer was never zeroed (torch.empty): zero it before loading, or pass "
    "pads='overwrite'"
)


@dataclass(frozen=True, slots=True)
class PadPart:
    """Rectangle of a buffer that lies behind its live values.

    Attributes:
        data: uint8 ``[experts, halves, rows, K bytes]``, a view of the buffer.
        first_row: of a half, where the rectangle begins.
        first_byte: of a row, where it begins.
    """

    data: torch.Tensor
    first_row: int
    first_byte: int


def check_pads_argument(pads: str) -> None:
    """Raise a LayoutError for an unknown way to treat pads."""
    if pads not in PADS:
        raise LayoutError(f"pads = {pads!r}; valid: {', '.join(PADS)}")


def check_pads(jobs: Iterable[Job]) -> None:
    """Check that the pads of weights and biases hold nothing but zeros.

    Only pads are read, and a GPU is waited for once where all are zero. Pads that a reload has left as it found them
    hold older laid-out bytes, and are no evidence.

    Raises:
        LayoutError: names each tensor with values in its pad, the first one's place, and what to do.
    """
    judged = [job for job in jobs if job.stamp.padded_source and is_judged(job.role)]
    parts = {job.role: pad_parts(job.tensor, job.stamp) for job in judged}
    live_parts = [_words(part.data).any() for found in parts.values() for part in found]
    if not live_parts or not bool(torch.stack(live_parts).any()):
        return
    written = {job.role: _written_parts(job, parts[job.role]) for job in judged}
    live = [(job, written[job.role], count) for job in judged if (count := _count(job, written[job.role]))]
    if not live:
        return
    also = ", ".join(f"{job.role} ({count})" for job, _, count in live[1:])
    raise LayoutError(f"{_describe(*live[0])}{f'; likewise {also}' if also else ''}; {_ADVICE}")


def pad_parts(tensor: torch.Tensor, stamp: Stamp) -> list[PadPart]:
    """Return the pads of a buffer in the physical shape, as views.

    Its rows are plain. Empty where the tensor has no pad. Of GGUU rows each half ends with its pad, of GUGU rows the
    buffer does.

    Args:
        tensor: ``[experts, rows, K]``, or ``[experts, rows]``.
        stamp: says how many rows and how much of K are live, and in which order rows come.
    """
    rows, k = _live_sizes(stamp)
    data = tensor.detach()
    data = (data.unsqueeze(-1) if data.dim() == 2 else data).view(torch.uint8)
    buffer, width = data.unflatten(1, (_halves(stamp), -1)), k * tensor.element_size()
    parts = [PadPart(buffer[:, :, rows:], rows, 0), PadPart(buffer[:, :, :rows, width:], 0, width)]
    return [part for part in parts if part.data.numel()]


def pad_sums(role: Role, tensor: torch.Tensor, stamp: Stamp) -> tuple[int, ...] | None:
    """Return a checksum of each of a buffer's pads.

    None for a role that is not judged.
    """
    if not is_judged(role) or tuple(tensor.shape) != stamp.physical_shape or not tensor.is_contiguous():
        return None
    return tuple(_sum_of_words(part.data) for part in pad_parts(tensor, stamp))


def is_judged(role: Role) -> bool:
    """Return whether values in a role's pad prove that they were loaded."""
    return not role.endswith("_scale")


def _written_parts(job: Job, parts: list[PadPart]) -> list[PadPart]:
    """Return the pads without those that a reload began on and has not written.

    None of them count where that is not known: the reload began for other rows, or there are no checksums.
    """
    before = stamp_of(job.tensor)
    if before is None or before.state != "reloading":
        return parts
    same = (before.shape, _halves(before)) == (job.stamp.shape, _halves(job.stamp))
    if not same or before.pad_sums is None or len(before.pad_sums) != len(parts):
        return []
    return [part for part, old in zip(parts, before.pad_sums, strict=True) if _sum_of_words(part.data) != old]


def _halves(stamp: Stamp) -> int:
    """Return the number of blocks of rows that have a pad each."""
    return 2 if stamp.order and stamp.source_order != "GUGU" else 1


def _live_sizes(stamp: Stamp) -> tuple[int, int]:
    """Return live rows of each half, and live elements of a row."""
    _, rows, k = (*stamp.shape, 1)[:3]
    return rows // _halves(stamp), k


def _words(data: torch.Tensor) -> torch.Tensor:
    """View bytes as words of eight where they are aligned: those are read several times faster."""
    aligned = all(number % _WORD == 0 for number in (data.shape[-1], data.storage_offset(), *data.stride()[:-1]))
    return data.view(torch.int64) if aligned else data


def _sum_of_words(data: torch.Tensor) -> int:
    return int(_words(data).sum(dtype=torch.int64))


def _live_elements(job: Job, data: torch.Tensor) -> torch.Tensor:
    """Return which elements have a byte that is neither zero nor the decision's fill."""
    live = data.ne(0) & data.ne(job.fill)
    by_element: torch.Tensor = live.unflatten(-1, (-1, job.tensor.element_size()))
    return by_element.any(-1)


def _count(job: Job, parts: Sequence[PadPart]) -> int:
    return sum(int(torch.count_nonzero(_live_elements(job, expert))) for part in parts for expert in part.data)


def _describe(job: Job, parts: Sequence[PadPart], count: int) -> str:
    halves, (rows, k) = _halves(job.stamp), _live_sizes(job.stamp)
    physical = job.tensor.shape[1] // halves
    expert, row, column = min(place for part in parts for place in _first(job, part, physical))
    where, expected = f"expert {expert}, row {row}", f"zeros behind row {rows} of {physical}"
    if halves > 1:
        expected += " in each half (gate, up)"
    if job.tensor.dim() > 2:
        where, expected = f"{where}, K {column}", f"{expected} and behind K {k} of {job.tensor.shape[2]}"
    return (
        f"{job.role} of shape {tuple(job.tensor.shape)} holds {count} non-zero elements where the decision has a pad, "
        f"the first at {where}; expected {expected} (plain shape {job.stamp.shape})"
    )


def _first(job: Job, part: PadPart, physical_rows: int) -> list[tuple[int, int, int]]:
    """Return expert, row and K of the first live element, or nothing.

    Rows and K are the tensor's, K in its elements.
    """
    begin = part.first_byte // job.tensor.element_size()
    for expert, data in enumerate(part.data):
        found = _live_elements(job, data).nonzero()
        if len(found):
            half, row, column = map(int, found[0])
            return [(expert, half * physical_rows + part.first_row + row, begin + column)]
    return []

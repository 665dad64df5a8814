"""Shares of a tensor that a rank may hold, and frames.

Both tensors' shapes are brought to one frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from preshuffle.layouts.forensics.hypotheses import Fault, Frame, RankShare
from preshuffle.layouts.forensics.source import ITEM, Bytes, SourceError
from preshuffle.registry import Query, QueryError
from preshuffle.registry.algebra.shard import Slice, cut, cut_slices
from preshuffle.registry.base.words import BITS, GROUP, Role, Shard

_TRIED = (1, 2, 4, 8, 16, 32)
_LARGEST_PAD = 256
_PACKED = frozenset({"U8", "I8", "F4", "F4_X2"})
MOST_SHARES = 96
"""Ranks beyond these are not tried where the rank is unknown."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Known facts of the tensor's rank; None is unknown."""

    tp: int | None = None
    ep: int | None = None
    tp_rank: int | None = None
    ep_rank: int | None = None


def frame_of(role: Role, plain: Bytes, live: Bytes, ranks: Ranks, gated: bool) -> Frame:
    """Return both tensors' sizes in bytes.

    Raises:
        SourceError: shapes or dtypes do not fit.
    """
    bias = role.endswith("_bias")
    halves = 2 if role.startswith("w13") and gated else 1
    experts, rows, k = _three_sizes(plain, bias)
    if rows % halves:
        raise SourceError(f"{plain.name}: {rows} rows do not split into gate and up")
    if plain.item != live.item:
        raise SourceError(f"{live.name} is {live.dtype}, {plain.name} is {plain.dtype}: their bytes cannot be compared")
    axis = len(live.shape) > 2 or (bias and len(live.shape) == 2)
    if axis:
        experts_held, per_expert, live_k = _three_sizes(live, bias)
        total = experts_held * per_expert
    else:
        experts_held = experts // (ranks.ep or 1)
        total = live.shape[0]
        if len(live.shape) != 2 and not bias:
            raise SourceError(f"{live.name} has shape {live.shape}; valid: [E, rows, K], or [E * rows, K]")
        live_k = live.nbytes // total
    if experts_held < 1 or experts % experts_held or (ranks.ep and experts_held * ranks.ep != experts):
        wanted = f"; at ep {ranks.ep} they would be {experts / ranks.ep:g}" if ranks.ep else ""
        raise SourceError(f"{live.name} holds {experts_held} experts, {plain.name} {experts}{wanted}")
    return Frame(experts, halves, rows // halves, k, plain.item, experts_held, total, live_k, axis)


def shares_of(
    role: Role, frame: Frame, ranks: Ranks, query: Query | None, dtype: str
) -> tuple[tuple[RankShare, tuple[Fault, ...]], ...]:
    """Return the shares that ranks may hold, expected ones first.

    Others have a fault where a rank was expected. The bias of w2 is added once: rank 0 holds all of it, other tp ranks
    hold zeros (``identify`` tests for those), so that a guessed tp would give the same share again.

    Args:
        role: which tensor.
        frame: both sides.
        ranks: what is known of the rank.
        query: the model's facts.
        dtype: safetensors' name of the checkpoint's dtype.

    Raises:
        SourceError: no rank's share fits into the live tensor.
    """
    found: list[tuple[RankShare, tuple[Fault, ...]]] = []
    guessed = _TRIED if role != "w2_bias" else (1,)
    for tp in (ranks.tp,) if ranks.tp else guessed:
        for piece, rank, faults, by_buffer in _pieces(role, frame, tp, query, dtype, bool(ranks.tp)):
            cut_one = (piece.start, piece.stop)
            rows, k = (cut_one, (0, frame.k)) if role.startswith("w13") else ((0, frame.half), cut_one)
            if not _fits(frame, rows, k, bool(ranks.tp)):
                continue
            for ep_rank in range(frame.experts // frame.live_experts):
                where = (rank, tp, ep_rank, frame.experts // frame.live_experts)
                share = RankShare(rows, k, ep_rank * frame.live_experts, where, by_buffer)
                found.append((share, (*faults, *_other(ranks, rank, ep_rank))))
    if not found:
        live = f"{frame.live_rows} rows of {frame.live_k} bytes for {frame.live_experts} experts"
        at = f"tp {ranks.tp}" if ranks.tp else "any tp"
        raise SourceError(
            f"{role}: {frame.halves * frame.half} rows of {frame.k} bytes, cut for {at}, do not fit {live}"
        )
    exact = {share.ranks[1] for share, _ in found if _exact(frame, share)}
    if exact and not ranks.tp:  # where a rank needs no pad nothing is left to guess (the last one may need some)
        found = [entry for entry in found if entry[0].ranks[1] in exact]
    return tuple(sorted(found, key=lambda entry: len(entry[1]))[:MOST_SHARES])


def _three_sizes(tensor: Bytes, bias: bool) -> tuple[int, int, int]:
    shape = tensor.shape if len(tensor.shape) > 2 or bias else (1, *tensor.shape)
    if len(shape) < 2 or not prod(shape):
        raise SourceError(f"{tensor.name} has shape {tensor.shape}; valid: [E, rows, K] (a bias [E, rows])")
    return shape[0], shape[1], tensor.nbytes // (shape[0] * shape[1])


_Piece = tuple[Slice, int, tuple[Fault, ...], bool]
"""A rank's slice, the rank, what is wrong with it, and whether slices are of a buffer's size."""


def _pieces(role: Role, frame: Frame, tp: int, query: Query | None, dtype: str, known: bool) -> Iterator[_Piece]:
    """Yield every rank's piece of the dimension that is cut, in each way of cutting; equal ones once.

    Slices of a buffer's size are tried where ``tp`` is known: with other sizes they are those of another ``tp``.
    """
    if role == "w2_bias":
        yield Slice(0, frame.k), 0, (), False
        return
    seen: set[tuple[int, int, int]] = set()
    for way, pieces in sorted(_ways(role, frame, tp, query, dtype), key=lambda found: len(found[0].faults)):
        if way.by_buffer and not known:
            continue
        for rank, piece in enumerate(pieces):
            if piece.size and (rank, piece.start, piece.stop) not in seen:
                seen.add((rank, piece.start, piece.stop))
                yield piece, rank, way.faults, way.by_buffer


@dataclass(frozen=True, slots=True)
class _Way:
    """One way of cutting: the values of ``Query.shard`` that mean it, and what is wrong where none is stated."""

    shards: tuple[Shard, ...]
    faults: tuple[Fault, ...] = ()
    by_buffer: bool = False

    def stated(self, shard: Shard | None) -> _Way:
        """Return the way with its faults in view of what the query states."""
        if shard is None or shard in self.shards:
            return self
        return replace(self, faults=(*self.faults, "other_cut"))


def _ways(
    role: Role, frame: Frame, tp: int, query: Query | None, dtype: str
) -> Iterator[tuple[_Way, tuple[Slice, ...]]]:
    """Yield the ways of cutting, each with every rank's piece."""
    w13 = role.startswith("w13")
    size, group = (frame.half, _group(query)) if w13 else (frame.k, _group_bytes(role, query, dtype))
    buffer = frame.live_rows // frame.live_experts // frame.halves if w13 else frame.live_k
    shard, even = query.shard if query else None, -(-size // tp)
    try:
        yield _Way(("groups",)).stated(shard), cut(size, tp, group)
    except QueryError:
        pass
    if buffer > even:
        yield _Way(("whole_blocks", "padded"), by_buffer=True).stated(shard), cut_slices(size, tp, buffer)
    if size % tp == 0:
        through: tuple[Fault, ...] = ("cut_through_groups",) if even % group else ()
        yield _Way(("values",), through).stated(shard), cut_slices(size, tp, even)
    if buffer > even:
        starts = (Slice(min(rank * buffer, size), min(rank * buffer + even, size)) for rank in range(tp))
        yield _Way((), ("rows_missed",)), tuple(starts)


def _fits(frame: Frame, rows: tuple[int, int], k: tuple[int, int], given: bool) -> bool:
    """Return whether a share fits into the live tensor.

    Where tp is a guess, with pads as small as recipes make them.
    """
    spare_rows = frame.live_rows // frame.live_experts - frame.halves * (rows[1] - rows[0])
    spare_k = frame.live_k - (k[1] - k[0])
    if spare_rows < 0 or spare_k < 0:
        return False
    return given or (spare_rows < frame.halves * _LARGEST_PAD and spare_k < _LARGEST_PAD * frame.item)


def _exact(frame: Frame, share: RankShare) -> bool:
    rows = frame.live_experts * frame.halves * (share.rows[1] - share.rows[0])
    return rows == frame.live_rows and share.k[1] - share.k[0] == frame.live_k


def _other(ranks: Ranks, tp_rank: int, ep_rank: int) -> tuple[Fault, ...]:
    wrong = ranks.tp_rank not in (None, tp_rank) or ranks.ep_rank not in (None, ep_rank)
    return ("other_rank",) if wrong else ()


def _group(query: Query | None) -> int:
    return GROUP.get(query.quant_type or "No", 1) if query else 32


def _group_bytes(role: Role, query: Query | None, dtype: str) -> int:
    """Return the bytes of K that one scale group takes.

    One byte of a scale is a whole group.
    """
    if not role.endswith("_weight"):
        return ITEM[dtype]
    bits = BITS[query.weight_dtype] if query and query.weight_dtype else 4 if dtype in _PACKED else 8 * ITEM[dtype]
    return max(_group(query) * bits // 8, ITEM[dtype])

"""Pieces of shards that are hashed by several tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from preshuffle.layouts.laid_out.runs.executor import SourceDigests
from preshuffle.layouts.stamps import digest_of_sums, pieces_of

PIECE: Final = 256 << 20
"""Bytes of a shard that are hashed at once: so few that all processors hash the first shard."""


@dataclass(frozen=True, slots=True)
class ShardPiece:
    """Byte range of a shard.

    Attributes:
        path: of the shard.
        number: counted from 0.
        extent: first byte, and past the last byte.
    """

    path: Path
    number: int
    extent: tuple[int, int]

    @property
    def name(self) -> str:
        """Name of its task."""
        return f"hash {self.path.name}" + (f" from {self.extent[0]:,}" if self.number else "")


class PiecewiseDigests:
    """Digests of shards, put together of their pieces' sums."""

    def __init__(self, digests: SourceDigests) -> None:
        """Know what is known already."""
        self._digests = digests
        self._sums: dict[Path, list[bytes | None]] = {}

    def pieces(self, path: Path) -> Iterator[ShardPiece]:
        """Yield what must be hashed of a shard; nothing the second time."""
        if path in self._sums or self._digests.known(path) is not None:
            return
        state = self._digests.state(path)
        extents = pieces_of(state[0] if state is not None else 0, PIECE)
        self._sums[path] = [None] * len(extents)
        yield from (ShardPiece(path, number, extent) for number, extent in enumerate(extents))

    def add(self, piece: ShardPiece, sums: bytes) -> None:
        """Take a piece's sums; record the digest behind the last one.

        Raises:
            CheckpointError: see ``SourceDigests.record``.
        """
        found = self._sums[piece.path]
        found[piece.number] = sums
        there = [one for one in found if one is not None]
        state = self._digests.state(piece.path)
        if len(there) == len(found) and state is not None:
            self._digests.record(piece.path, digest_of_sums(there, state[0]))

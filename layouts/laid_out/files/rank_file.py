"""File of one rank's layer: compared with the manifest, then mapped."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from pathlib import Path

import torch

from preshuffle.layouts.checkpoint import (
    TORCH_DTYPES,
    CheckpointError,
    map_file,
    read_head,
)
from preshuffle.layouts.laid_out.files.checked_file import check_header, check_key, stamp_in
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.manifest import FileRecord, Manifest, TensorRecord
from preshuffle.layouts.stamps import FileState, mark_mapped, state_of_file


class RankFile:
    """One layer's file of one rank.

    Attributes:
        stamps: its tensors', without the digests that their records have.
    """

    def __init__(self, folder: Path, record: FileRecord, manifest: Manifest, written: FileState | None = None) -> None:
        """Compare the file's header with the manifest.

        Args:
            folder: the laid-out checkpoint's.
            record: of the file.
            manifest: that the record is of.
            written: the state in which the file was left, where that is known.

        Raises:
            LaidOutError: the file is missing, cut short, or another run's.
        """
        self.path = folder / record.file
        self.record = record
        self._written = written
        self._ahead: tuple[mmap.mmap, FileState] | None = None
        shard = check_header(self.path, record)
        check_key(shard, record, manifest)
        self.stamps = {one.name: stamp_in(shard, one.name)[0] for one in record.tensors if one.stamped}
        self._head = shard.head

    def map(self) -> dict[str, torch.Tensor]:
        """Map the file, and return its tensors as views.

        The mapping is private to this process, and goes with the last of them.

        Raises:
            LaidOutError: the file is another one than the one that was opened, or cannot be read.
        """
        mapped, state = self._ahead or self._mapped()
        self._ahead = None
        if state != self._written:
            self._check_same(mapped[: len(self._head)], len(mapped))
        found = {one.name: _view(mapped, one) for one in self.record.tensors}
        _, _, inode, _ = state
        real = Path(os.path.realpath(self.path))
        mark_mapped(((found[one.name], one.begin) for one in self.record.tensors if one.nbytes), real, inode)
        return found

    def map_ahead(self) -> None:
        """Map the file early, so that the system reads it."""
        with suppress(LaidOutError):  # is said where it is mapped
            self._ahead = self._mapped()

    def is_as_written(self) -> bool:
        """Whether the file is known to be what its run left."""
        try:
            return self._written is not None and state_of_file(self.path) == self._written
        except OSError:
            return False

    def check_unchanged(self) -> None:
        """Compare the file's header with the one that was opened.

        Raises:
            LaidOutError: the file is another one, or cannot be read.
        """
        try:
            self._check_same(*read_head(self.path))
        except CheckpointError as error:
            raise LaidOutError(str(error)) from None

    def _mapped(self) -> tuple[mmap.mmap, FileState]:
        try:
            return map_file(self.path, ahead=True)  # in its order: the first tensors' places are all over the file
        except CheckpointError as error:
            raise LaidOutError(str(error)) from None

    def _check_same(self, head: bytes, size: int) -> None:
        if head != self._head or size != self.record.size:
            raise LaidOutError(f"{self.path}: is another file than the one that was opened")


def dtype_of(one: TensorRecord) -> torch.dtype:
    """Return the dtype under which a kernel gets a tensor."""
    dtype: torch.dtype = getattr(torch, one.torch_dtype) if one.torch_dtype else TORCH_DTYPES[one.dtype]
    return dtype


def _view(mapped: mmap.mmap, one: TensorRecord) -> torch.Tensor:
    if not one.nbytes:
        return torch.empty(one.shape, dtype=dtype_of(one), device="cpu")
    flat = torch.frombuffer(mapped, dtype=torch.uint8, count=one.nbytes, offset=one.begin)
    return flat.view(dtype_of(one)).view(one.shape)

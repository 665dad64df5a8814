"""File of one rank's layer: compared with the manifest, then mapped."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

from preshuffle.layouts.checkpoint import (
    TORCH_DTYPES,
    CheckpointError,
    ShardFile,
    map_file,
    open_regular,
    read_head,
)
from preshuffle.layouts.laid_out.files.checked_file import check_head, check_key, check_tensors
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.manifest import FileRecord, Manifest, TensorRecord
from preshuffle.layouts.stamps import FileState, Stamp, state_of_file


class RankFile:
    """One layer's file of one rank.

    The checksum of its header is compared with the manifest's when it is opened. The header is parsed, and its tensors,
    stamps and key are compared, before its first tensor is handed out.
    """

    def __init__(self, folder: Path, record: FileRecord, manifest: Manifest, written: FileState | None = None) -> None:
        """Compare the header's bytes with the manifest.

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
        self._manifest = manifest
        self._written = written
        self._is_ahead = False
        self._head = check_head(self.path, record)
        self._stamps: Mapping[str, Stamp] | None = None

    def stamps(self) -> Mapping[str, Stamp]:
        """Return the tensors' stamps, with the digests of all bytes.

        Raises:
            LaidOutError: the header says something else than the manifest.
        """
        if self._stamps is None:
            try:
                shard = ShardFile.parse(self.path, self._head, self.record.size)
            except CheckpointError as error:
                raise LaidOutError(str(error)) from None
            stamps = check_tensors(shard, self.record)
            check_key(shard, self.record, self._manifest)
            self._stamps = stamps
        return self._stamps

    def map(self) -> dict[str, torch.Tensor]:
        """Map the file, and return its tensors as views.

        The mapping is private to this process, and goes with the last of them.

        Raises:
            LaidOutError: the file is another one than the one that was opened, or cannot be read.
        """
        try:
            mapped = map_file(self.path)
        except CheckpointError as error:
            raise LaidOutError(str(error)) from None
        self._check_same(mapped[: len(self._head)], len(mapped))
        if not self._is_ahead:
            self.read_ahead()  # in its order: the first tensors' places are all over the file
        self._is_ahead = False
        return {one.name: _view(mapped, one) for one in self.record.tensors}

    def read_ahead(self) -> None:
        """Have the system read what is on the disk yet.

        It is not waited for.
        """
        with suppress(OSError), open_regular(self.path) as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
            self._is_ahead = True

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

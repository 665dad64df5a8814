"""Tensors that are no experts', and small files: copied as they are."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from preshuffle.layouts.checkpoint import INDEX, MappedShards, ShardFile
from preshuffle.layouts.laid_out.files.manifest import MANIFEST, SOURCE, CopiedRecord, key_of_copies
from preshuffle.layouts.laid_out.files.tensor_writer import TensorWriter, copy_whole, write_changed, writing
from preshuffle.layouts.laid_out.runs.rank_layer import Advance
from preshuffle.layouts.stamps import digest_file

_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".partial")
_BLOCK: Final = 16 << 20
HEADER: Final = ".header"
"""Ending of the file with a shard's bytes before its first tensor."""


@dataclass(frozen=True, slots=True)
class OtherFile:
    """Tensors of one shard that are copied into one file.

    Attributes:
        file: the new file's name.
        source: the shard.
        names: which tensors, in the order of their bytes.
        nbytes: their bytes.
    """

    file: str
    source: Path
    names: tuple[str, ...]
    nbytes: int

    @staticmethod
    def of(kind: str, number: int, count: int, shard: ShardFile, names: Collection[str]) -> OtherFile:
        """Plan the copy of some of a shard's tensors."""
        chosen = tuple(name for name in shard.entries if name in names)
        size = sum(shard.entries[name].nbytes for name in chosen)
        return OtherFile(f"{kind}-{number:05d}-of-{count:05d}.safetensors", shard.path, chosen, size)

    def key(self, digest: str) -> str:
        """Return the key of everything that decides the file's bytes.

        Args:
            digest: of the shard.
        """
        return key_of_copies(digest, self.names)


def copy_tensors(other: OtherFile, shards: MappedShards, writer: TensorWriter, advance: Advance) -> None:
    """Copy a shard's tensors into a file.

    Raises:
        CheckpointError: the shard was cut short.
    """
    header = shards.header(other.source)
    for name in other.names:
        entry = header.entries[name]
        tensor = writer.tensor(name)
        for begin in range(entry.begin, entry.end, _BLOCK):
            with shards.reading() as reading:
                block = reading.bytes(other.source, begin, min(begin + _BLOCK, entry.end))
                tensor.write(block)
            advance(block.numel())
        tensor.finish(entry.dtype, entry.shape)


def copy_small_files(folder: Path, out: Path) -> tuple[CopiedRecord, ...]:
    """Copy configuration, tokenizer and the like.

    Raises:
        LaidOutError: one cannot be written.
    """
    records: list[CopiedRecord] = []
    for path in small_files(folder):
        if not (out / path.name).is_file() or not filecmp.cmp(path, out / path.name, shallow=False):
            copy_whole(path, out / path.name)
        size = (out / path.name).stat().st_size
        records.append(CopiedRecord(file=path.name, size=size, digest=digest_file(out / path.name, (0, size))))
    return tuple(records)


def small_files(folder: Path) -> list[Path]:
    """Return a checkpoint's configuration, tokenizer and the like."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix not in _WEIGHTS and path.name not in (INDEX, MANIFEST)
    ]


def copy_headers(folder: Path, out: Path, headers: Collection[ShardFile]) -> tuple[CopiedRecord, ...]:
    """Copy the headers and the index of a checkpoint's shards.

    Raises:
        LaidOutError: one cannot be written.
    """
    target = out / SOURCE
    with writing(target):
        target.mkdir(exist_ok=True)
    texts = {f"{shard.path.name}{HEADER}": shard.head for shard in headers}
    if (folder / INDEX).is_file():
        texts[INDEX] = (folder / INDEX).read_bytes()
    records: list[CopiedRecord] = []
    for name, data in sorted(texts.items()):
        write_changed(target / name, data)
        digest = digest_file(target / name, (0, len(data)))
        records.append(CopiedRecord(file=f"{SOURCE}/{name}", size=len(data), digest=digest))
    return tuple(records)


def room_for(folder: Path) -> int:
    """Return how many bytes a folder's file system has left."""
    return shutil.disk_usage(folder).free

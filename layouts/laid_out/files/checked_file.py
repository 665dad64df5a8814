"""Files of a laid-out checkpoint, compared with its manifest."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from preshuffle.layouts.checkpoint import CheckpointError, ShardFile
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.finished_file import sealed_header
from preshuffle.layouts.laid_out.files.manifest import CopiedRecord, FileRecord, Manifest, key_of_copies
from preshuffle.layouts.laid_out.files.tensor_writer import UNIT
from preshuffle.layouts.stamps import Stamp, digest_file
from preshuffle.registry import LayoutError


def check_header(path: Path, record: FileRecord) -> ShardFile:
    """Compare a file's header with the manifest.

    Raises:
        LaidOutError: it is missing, cut short, or another run's.
    """
    try:
        shard = ShardFile.open(path)
    except CheckpointError as error:
        raise LaidOutError(str(error)) from None
    check_tensors(shard, record)
    if sealed_header(shard) != record.header:
        raise LaidOutError(f"{path}: its header is another one than the manifest says: files are mixed")
    return shard


def check_tensors(shard: ShardFile, record: FileRecord) -> None:
    """Compare key, tensors and stamps of a header with the manifest.

    Raises:
        LaidOutError: they are others.
    """
    path = shard.path
    try:
        key = json.loads(shard.metadata[UNIT])["key"]
    except (KeyError, ValueError, TypeError):
        raise LaidOutError(f"{path}: no file of a laid-out checkpoint") from None
    if key != record.key:
        raise LaidOutError(f"{path}: of another run than the manifest (its key differs): files are mixed")
    stored = {tensor.name: tensor for tensor in record.tensors}
    if shard.size != record.size or set(stored) != set(shard.entries):
        raise LaidOutError(f"{path}: holds other tensors than the manifest says")
    for name, entry in shard.entries.items():
        tensor = stored[name]
        if (entry.dtype, entry.shape, entry.begin, entry.nbytes) != (
            tensor.dtype, tensor.shape, tensor.begin, tensor.nbytes
        ):  # fmt: skip
            raise LaidOutError(f"{path}: tensor {name} is another one than the manifest says")
    for tensor in record.tensors:
        if tensor.stamped and stamp_in(shard, tensor.name)[1] != tensor.digest:
            raise LaidOutError(f"{path}: the stamp of {tensor.name} is another one than the manifest says")


def stamp_in(shard: ShardFile, name: str) -> tuple[Stamp, str | None]:
    """Return a tensor's stamp and digest from its file's header.

    Raises:
        LaidOutError: there is none, or it is damaged.
    """
    try:
        return Stamp.split_text(shard.metadata[f"preshuffle.{name}"])
    except KeyError:
        raise LaidOutError(f"{shard.path}: tensor {name} has no stamp") from None
    except LayoutError as error:
        raise LaidOutError(f"{shard.path}: tensor {name}: {error}") from None


def check_key(shard: ShardFile, record: FileRecord, manifest: Manifest) -> None:
    """Compute a file's key anew, from the manifest's plan and sources.

    Args:
        shard: its header, compared with the record before.
        record: of the file.
        manifest: says by which decision and of which shards.

    Raises:
        LaidOutError: the key is another one, or the file was made of other shards.
    """
    used: dict[str, Any] = json.loads(shard.metadata[UNIT]).get("sources", {})
    known = manifest.digests()
    if not used or any(known.get(name) != digest for name, digest in used.items()):
        raise LaidOutError(f"{shard.path}: made of other shards than the manifest says")
    if record.layer is None or record.tp_rank is None or record.ep_rank is None:
        key = key_of_copies(next(iter(used.values())), [one.name for one in record.tensors])
    else:
        key = manifest.plan_of(record.layer).key_of(record.layer, record.tp_rank, record.ep_rank, used)
    if key != record.key:
        raise LaidOutError(f"{shard.path}: its key is not that of the decision and the shards that it names")


def check_copied(out: Path, record: CopiedRecord) -> None:
    """Compare a copied file with its record.

    Raises:
        LaidOutError: it is missing, or was changed.
    """
    path = out / record.file
    try:
        found = os.stat(path)
        same = stat.S_ISREG(found.st_mode) and found.st_size == record.size
        same = same and digest_file(path, (0, record.size)) == record.digest
    except OSError as error:
        raise LaidOutError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not same:
        raise LaidOutError(f"{path}: was changed since it was copied")

"""Files that an earlier run finished, read from their own headers."""

from __future__ import annotations

import json
from pathlib import Path

from preshuffle.layouts.checkpoint import ShardFile
from preshuffle.layouts.laid_out.files.errors import LaidOutError, StaleError
from preshuffle.layouts.laid_out.files.manifest import FileRecord, TensorRecord
from preshuffle.layouts.laid_out.files.seal import is_sealed
from preshuffle.layouts.laid_out.files.tensor_writer import RECORDS, SEAL, UNIT
from preshuffle.registry import PreshuffleError


def read_finished(path: Path, key: str) -> FileRecord | None:
    """Return the record of an existing file, or None.

    Args:
        path: the file.
        key: that it must have.

    Raises:
        StaleError: it has another key.
        LaidOutError: it is damaged, or no file of ours.
    """
    if not path.exists():
        return None
    try:
        shard = ShardFile.open(path)
        header = sealed_header(shard)
        description = json.loads(shard.metadata[UNIT])
        tensors = tuple(TensorRecord.model_validate(one) for one in json.loads(shard.metadata[RECORDS]))
        found = str(description["key"])
    except (PreshuffleError, KeyError, ValueError, TypeError) as error:
        raise LaidOutError(f"{path}: is there, and not what a run writes ({error}); remove it") from None
    if found != key:
        raise StaleError(
            f"{path}: is there, but made of another checkpoint or by another decision. Choose another folder, or "
            f"remove {path.parent}"
        )
    ranks = {name: description.get(name) for name in ("layer", "tp_rank", "ep_rank")}
    return FileRecord(file=path.name, key=key, size=shard.size, header=header, tensors=tensors, **ranks)


def sealed_header(shard: ShardFile) -> str:
    """Return the checksum of a file's header.

    Raises:
        LaidOutError: there is none, or the header is another one.
    """
    checksum = shard.metadata.get(SEAL, "")
    if not is_sealed(shard.head, checksum):
        raise LaidOutError(f"{shard.path}: its header was changed since it was written")
    return checksum

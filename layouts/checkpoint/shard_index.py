"""Index of a sharded safetensors checkpoint: which file holds which tensor."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from stat import S_ISREG
from typing import Any

from preshuffle.layouts.checkpoint.part import CheckpointError
from preshuffle.layouts.checkpoint.shard_file import ShardFile


def read_shards(index: Path, single: Path) -> dict[str, Path]:
    """Return the file of each tensor of a checkpoint.

    Args:
        index: says which file of its folder holds which tensor.
        single: the only file, where there is no index.

    Raises:
        CheckpointError: there is no index and no single file, it cannot be read, or it names a file outside the folder.
    """
    if index.is_file():
        return _read_index(index)
    if not single.is_file():
        raise CheckpointError(f"{index.parent}: neither {index.name} nor {single.name} is there")
    return dict.fromkeys(ShardFile.open(single).entries, single)


def _read_index(index: Path) -> dict[str, Path]:
    try:
        table = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {str(name): file for name, file in table.items()}
    except RecursionError:
        raise CheckpointError(f"{index}: not a safetensors index (nested too deeply)") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise CheckpointError(f"{index}: not a safetensors index ({error})") from None
    paths: dict[str, Path] = {}
    for file in files.values():
        if not isinstance(file, str) or file not in paths:
            paths[str(file)] = _inside(index, file)
    return {name: paths[file] for name, file in files.items()}


def _inside(index: Path, file: Any) -> Path:
    """Return the path of a file that an index names.

    Raises:
        CheckpointError: it is no relative path that stays in the folder, with symbolic links followed, or no regular
            file. The Hugging Face cache's own links, from ``snapshots/REVISION`` to ``blobs``, are followed.
    """
    folder = index.parent
    if not isinstance(file, str):
        raise CheckpointError(f"{index}: not a safetensors index (file {file!r:.80})")
    posix, windows = PurePosixPath(file), PureWindowsPath(file)
    plain = file.isprintable() and not (windows.drive or windows.root) and ".." not in (*posix.parts, *windows.parts)
    if not plain or not posix.parts:
        raise CheckpointError(f"{index}: names {file!r:.120}; valid: a file in {folder}")
    try:
        root, path = folder.resolve(), (folder / file).resolve()
        readable = _is_regular_or_missing(path)  # a pipe, say, would be read without end
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{index}: names {file!r:.120}, which cannot be followed: {error}") from None
    homes = [root]
    if folder.absolute().parent.name == "snapshots":
        homes.append((folder.absolute().parent.parent / "blobs").resolve())
    if not any(path.is_relative_to(home) for home in homes):
        raise CheckpointError(f"{index}: names {file!r:.120}, a link to {path}; valid: a file in {folder}")
    if not readable:
        raise CheckpointError(f"{index}: names {file!r:.120}, which is no regular file")
    return folder / file


def _is_regular_or_missing(path: Path) -> bool:
    """Whether a path is a regular file or nothing.

    Raises:
        OSError: it cannot be followed: links lead in a circle, which ``resolve`` reports up to Python 3.12 only.
    """
    try:
        return S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True

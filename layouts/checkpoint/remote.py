"""Checkpoints on other file systems (``s3://``, ``gs://``, ``hf://``, …), through fsspec."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any, Final

from preshuffle.layouts.checkpoint.checkpoint import INDEX
from preshuffle.layouts.checkpoint.part import CheckpointError

_BLOCK: Final = 16 << 20
_PARTIAL: Final = ".partial"
_WANTED: Final = (".safetensors", ".json", ".txt", ".model", ".py", ".jinja", ".md", ".tiktoken")
"""Endings of what is fetched: weights in other formats are not."""
Advance = Callable[[int], None]


def is_remote(source: str | os.PathLike[str]) -> bool:
    """Return whether a source is an address of another file system."""
    return isinstance(source, str) and "://" in source


def fetch_checkpoint(address: str, folder: Path, advance: Advance | None = None) -> Path:
    """Fetch a checkpoint's files, in blocks; files that are there already stay.

    Args:
        address: of a folder, as fsspec takes it.
        folder: where to.
        advance: called with every number of bytes that came.

    Returns:
        The folder.

    Raises:
        CheckpointError: fsspec or what it needs for the address is not installed, there is no such folder, or a file
            came short.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise CheckpointError(f'{address}: needs fsspec: pip install "preshuffle[remote]"') from None
    try:
        system, root = url_to_fs(address)
        listed = [entry for entry in system.ls(root, detail=True) if entry["type"] == "file"]
    except (ImportError, ValueError, OSError) as error:
        raise CheckpointError(f"{address}: cannot be read: {error}") from None
    folder.mkdir(parents=True, exist_ok=True)
    for entry in sorted(listed, key=lambda entry: str(entry["name"])):
        name = PurePosixPath(entry["name"]).name
        target = folder / name
        if not name.endswith(_WANTED) or (target.exists() and target.stat().st_size == entry["size"]):
            continue
        _fetch(system, str(entry["name"]), int(entry["size"]), target, advance)
    _check_complete(address, folder, (PurePosixPath(entry["name"]).name for entry in listed))
    return folder


def _fetch(system: Any, path: str, size: int, target: Path, advance: Advance | None) -> None:
    partial = target.with_name(target.name + _PARTIAL)
    try:
        with partial.open("wb") as stream:
            for begin in range(0, size, _BLOCK):
                wanted = min(_BLOCK, size - begin)
                block = system.cat_file(path, start=begin, end=begin + wanted)
                if len(block) != wanted:
                    raise CheckpointError(f"{path}: came short: {len(block)} of {wanted} bytes at byte {begin}")
                stream.write(block)
                if advance is not None:
                    advance(wanted)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(partial, target)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be fetched to {target}: {error}") from None
    finally:
        partial.unlink(missing_ok=True)


def _check_complete(address: str, folder: Path, listed: Iterable[str]) -> None:
    """Check that every shard that the index names was listed.

    Raises:
        CheckpointError: names the first one that was not.
    """
    there = set(listed)
    if INDEX not in there:
        return
    try:
        named = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # reading the checkpoint says it better
    missing = sorted(str(name) for name in named if name not in there)
    if missing:
        raise CheckpointError(f"{address}: the index names {missing[0]}, which is not there")

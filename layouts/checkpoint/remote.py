"""Checkpoints of other file systems (``s3://``, ``gs://``, ``hf://``, …), fetched to a folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Any, Final

from preshuffle.layouts.checkpoint.checkpoint import INDEX, SINGLE
from preshuffle.layouts.checkpoint.part import CheckpointError
from preshuffle.layouts.checkpoint.remote_folder import Identity, RemoteFile, RemoteFolder, same_identity

_BLOCK: Final = 16 << 20
_AT_ONCE: Final = 4
"""Files that are fetched at once: one connection seldom fills a network."""
_PARTIAL: Final = ".partial"
_CONFIG: Final = "config.json"
_WANTED: Final = (".safetensors", ".json", ".txt", ".model", ".py", ".jinja", ".md", ".tiktoken")
"""Endings of what is fetched: weights in other formats are not."""
Advance = Callable[[int], None]
"""Called with numbers of bytes that came, by several threads; may raise to stop."""
_HASHES: Final[dict[str, Callable[[int], Any]]] = {
    "sha256": lambda size: hashlib.sha256(),
    "git": lambda size: hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False),
    "md5": lambda size: hashlib.md5(usedforsecurity=False),
}
"""Kinds of identity that are computed from what came, by the file's size."""


def wanted_files(remote: RemoteFolder) -> dict[str, RemoteFile]:
    """Return the files of a checkpoint.

    Raises:
        CheckpointError: there is no configuration, or there are no shards.
    """
    found = {name: file for name, file in remote.files.items() if name.endswith(_WANTED)}
    if _CONFIG not in found:
        raise CheckpointError(f"{remote.address}: there is no {_CONFIG}: no Hugging Face checkpoint")
    if INDEX not in found and SINGLE not in found:
        raise CheckpointError(f"{remote.address}: neither {INDEX} nor {SINGLE} is there")
    return found


def fetch_checkpoint(
    remote: RemoteFolder,
    folder: Path,
    journal: Path,
    advance: Advance | None = None,
    leave_out: Collection[str] = (),
) -> dict[str, Identity]:
    """Fetch a checkpoint's files that are not there yet.

    Args:
        remote: the folder, listed just now.
        folder: where to.
        journal: file that says what was fetched; in another folder.
        advance: called with every number of bytes that came or were there.
        leave_out: names of files that are not needed.

    Returns:
        What is known of each file's bytes.

    Raises:
        CheckpointError: a file came short or with other bytes, is not what an earlier run fetched, or changed while it
            was fetched; or there is no room.
    """
    files = wanted_files(remote)
    fetcher = _Fetcher(remote, folder, journal, advance or (lambda nbytes: None))
    missing = fetcher.missing({name: file for name, file in files.items() if name not in leave_out})
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = sum(file.size for file in missing), shutil.disk_usage(folder).free
    if needed > free:
        raise CheckpointError(f"{folder}: {needed:,} bytes are fetched, and {free:,} are free; nothing was fetched")
    # the index first: what it lacks is known before the shards come
    first = [file for file in missing if file.name in (INDEX, _CONFIG)]
    fetcher.fetch(first)
    _check_complete(remote, folder)
    fetcher.fetch([file for file in missing if file not in first])
    return {name: file.identity for name, file in files.items()}


def fetched_names(folder: Path, journal: Path) -> set[str]:
    """Return the files that an earlier run fetched whole."""
    done = _read_journal(journal)
    sizes = {name: (folder / name).stat().st_size for name in done if (folder / name).is_file()}
    return {name for name, size in sizes.items() if size == done[name]["size"]}


def forget_fetched(journal: Path, names: Collection[str]) -> None:
    """Take files out of the journal of what was fetched, for good."""
    done = _read_journal(journal)
    if done.keys() & set(names):
        _write_journal(journal, {name: one for name, one in done.items() if name not in names})
        with journal.open("rb") as stream:
            os.fsync(stream.fileno())


def check_unchanged(address: str, before: RemoteFolder) -> None:
    """List a folder again, and compare.

    Raises:
        CheckpointError: a file is another one, or gone.
    """
    now = RemoteFolder.open(address).files
    for name, file in wanted_files(before).items():
        found = now.get(name)
        if found is None:
            raise CheckpointError(f"{file.path}: vanished while it was fetched; nothing of it is used")
        if found.size != file.size or same_identity(found.identity, file.identity) is False:
            raise CheckpointError(f"{file.path}: changed while it was fetched; nothing of it is used")


@dataclass(slots=True)
class _Fetcher:
    remote: RemoteFolder
    folder: Path
    journal: Path
    advance: Advance
    _done: dict[str, dict[str, Any]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)
    _stop: Event = field(default_factory=Event)

    def missing(self, files: Mapping[str, RemoteFile]) -> list[RemoteFile]:
        """Return what is not there yet.

        Raises:
            CheckpointError: what an earlier run fetched is another file now.
        """
        self._done = _read_journal(self.journal)
        missing: list[RemoteFile] = []
        for file in files.values():
            before, target = self._done.get(file.name), self.folder / file.name
            if before is None or not target.is_file() or target.stat().st_size != before["size"]:
                missing.append(file)
                continue
            if file.size != before["size"] or same_identity(file.identity, before["identity"]) is False:
                raise CheckpointError(
                    f"{file.path}: is not the file that the run in {self.journal.parent.parent} began with: it was "
                    "replaced since. Remove that folder to begin again"
                )
            self.advance(file.size)
        return missing

    def fetch(self, files: list[RemoteFile]) -> None:
        """Fetch files; raise the first error after all threads have stopped."""
        with ThreadPoolExecutor(_AT_ONCE, "fetch") as pool:
            futures = [pool.submit(self._fetch, file) for file in files]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self._stop.set()
                for future in futures:
                    future.cancel()
                raise

    def _fetch(self, file: RemoteFile) -> None:
        target = self.folder / file.name
        partial = target.with_name(target.name + _PARTIAL)
        hashes = {kind: make(file.size) for kind, make in _HASHES.items() if kind in file.identity}
        try:
            with partial.open("wb") as stream:
                for begin in range(0, file.size, _BLOCK):
                    if self._stop.is_set():
                        return
                    block = self.remote.read(file, begin, min(begin + _BLOCK, file.size))
                    for one in hashes.values():
                        one.update(block)
                    stream.write(block)
                    self.advance(len(block))
                stream.flush()
                os.fsync(stream.fileno())
            for kind, one in hashes.items():
                if one.hexdigest() != file.identity[kind]:
                    raise CheckpointError(f"{file.path}: came with other bytes: its {kind} differs from what is stated")
            os.rename(partial, target)
            with self._lock:
                self._done[file.name] = {"size": file.size, "identity": dict(file.identity)}
                _write_journal(self.journal, self._done)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            advice = "; make room and run the same command again, it resumes" if full else ""
            reason = error.strerror or error
            raise CheckpointError(f"{file.path}: cannot be fetched to {target}: {reason}{advice}") from None
        finally:
            partial.unlink(missing_ok=True)


def _read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """Return what was fetched; nothing where the journal is damaged, since fetching anew is right then, too."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): {"size": one["size"], "identity": dict(one["identity"])} for name, one in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_journal(path: Path, done: Mapping[str, Any]) -> None:
    partial = path.with_name(path.name + _PARTIAL)
    partial.write_text(json.dumps(done, indent=1), encoding="utf-8")
    os.rename(partial, path)


def _check_complete(remote: RemoteFolder, folder: Path) -> None:
    """Check that every shard that the index names was listed.

    Raises:
        CheckpointError: names the first one that was not.
    """
    if INDEX not in remote.files:
        return
    try:
        named = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # reading the checkpoint says it better
    missing = sorted(str(name) for name in named if name not in remote.files)
    if missing:
        raise CheckpointError(f"{remote.address}: the index names {missing[0]}, which is not there")

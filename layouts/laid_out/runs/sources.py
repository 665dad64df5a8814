"""Files of the checkpoint, hashed and watched for changes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final

from preshuffle.layouts.checkpoint import Checkpoint, CheckpointError, MappedShards
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.finished_manifest import FinishedManifest
from preshuffle.layouts.laid_out.files.manifest import WORK, SourceRecord
from preshuffle.layouts.laid_out.files.tensor_writer import write_whole
from preshuffle.layouts.laid_out.runs.finished_sources import finished_digests
from preshuffle.layouts.stamps import FileState, digest_file, state_of_file

JOURNAL: Final = "plan"


@dataclass(slots=True)
class _Known:
    """Digest, and the states of files that had it: machines may see one file with several inodes."""

    digest: str
    states: set[FileState]


class Sources:
    """A checkpoint's shards, each hashed once; for several threads.

    What was hashed is kept in the output's folder, so that a run which resumes hashes only what has changed since, and
    notices where that is not what the earlier run read. Other runs' in that folder are read, too, once more before a
    shard is hashed; and so are a finished run's. A shard is hashed again unless size, inode, time of modification and
    time of change are as they were: a write sets the last one, whatever is done to the others.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        out: Path,
        fingerprint: Mapping[str, Any],
        journal: str = JOURNAL,
        recorded: Mapping[str, str] | None = None,
        finished: FinishedManifest | None = None,
    ) -> None:
        """Read what earlier runs have left.

        Args:
            checkpoint: whose shards.
            out: where the output goes.
            fingerprint: what is being done, beside the bytes of the checkpoint.
            journal: name of the file that keeps what is hashed; other runs' are read, and not written.
            recorded: digests of shards that are not read, by name.
            finished: of the output folder, where it may have been read already.

        Raises:
            LaidOutError: an earlier run in that folder did something else.
        """
        self.paths = sorted(set(checkpoint.shards.values()))
        self._out = out
        self._journal = out / WORK / f"{journal}.json"
        self._fingerprint = dict(fingerprint)
        self._lock = Lock()
        self._known: dict[str, _Known] = {}
        self._begun: dict[str, FileState] = {}
        if not self._journal.exists():
            self._write_journal()  # before others are read: of two runs that differ one sees the other
        self._read_finished(finished or FinishedManifest(out))
        self._read_journals()
        for path in self.paths:
            if recorded and path.name in recorded:
                self._known[path.name] = _Known(recorded[path.name], {self.state(path)})

    def forget(self, path: Path) -> None:
        """Forget a shard's state: it is hashed again and compared."""
        with self._lock:
            self._begun.pop(path.name, None)

    def check_index(self, checkpoint: Checkpoint, shards: MappedShards) -> None:
        """Compare the checkpoint's index with its files' headers.

        Raises:
            CheckpointError: a file lacks a tensor that the index says it holds, holds one that the index says another
                file holds, or is not as long as its header says.
        """
        for path in self.paths:
            held = shards.header(path).entries
            for name in held:
                other = checkpoint.shards.get(name, path)
                if other != path and name in shards.header(other).entries:
                    raise CheckpointError(
                        f"{path}: tensor {name} is in {other.name}, too: shards of several checkpoints are mixed"
                    )
        for name, path in checkpoint.shards.items():
            if name not in shards.header(path).entries:
                raise CheckpointError(
                    f"{path}: tensor {name} is not there though the index says so: shards of several checkpoints?"
                )

    def digest(self, path: Path) -> str:
        """Return the digest of a file, cached for unchanged files.

        Raises:
            CheckpointError: the file cannot be read, or is not what an earlier run has read.
        """
        known = self.known(path)
        if known is None:  # another run may have hashed it meanwhile
            self._read_journals()
            known = self.known(path)
        if known is not None:
            return known
        digest = digest_file(path, (0, self.state(path)[0]))
        self.record(path, digest)
        return digest

    def known(self, path: Path) -> str | None:
        """Return a file's digest, None where it must be computed.

        Raises:
            CheckpointError: the file cannot be read, or changed during this run.
        """
        state = self.state(path)
        with self._lock:
            known = self._known.get(path.name)
            return known.digest if known is not None and state in known.states else None

    def state(self, path: Path) -> FileState:
        """Return a file's size, times and inode.

        They are constant during a run, but for the time of change, which links and permissions set, too.

        Raises:
            CheckpointError: the file cannot be read, or changed during this run.
        """
        state = _state_of(path)
        with self._lock:
            if self._begun.setdefault(path.name, state)[:3] != state[:3]:
                raise CheckpointError(f"{path}: changed while it was read; nothing of it is used")
        return state

    def record(self, path: Path, digest: str) -> None:
        """Record the digest of a file.

        Raises:
            CheckpointError: the file changed since, or is not what an earlier run has read.
        """
        state = self.state(path)
        with self._lock:
            known = self._known.get(path.name)
            if known is not None and known.digest != digest:
                raise CheckpointError(
                    f"{path}: is not the file that the run in {self._out} began with: its bytes differ. Remove that "
                    "folder to begin again"
                )
            self._add(path.name, digest, state)
            self._write_journal()

    def check_unchanged(self, paths: Iterable[Path]) -> None:
        """Check that files are still those that were hashed.

        Raises:
            CheckpointError: one has changed since.
        """
        for path in paths:
            self.state(path)

    def records(self) -> tuple[SourceRecord, ...]:
        """Return all files; each was hashed."""
        return tuple(
            SourceRecord(name=path.name, size=self._begun[path.name][0], digest=self._known[path.name].digest)
            for path in self.paths
        )

    def _read_finished(self, finished: FinishedManifest) -> None:
        """Take the digests of a run that is finished, if its shards are still the same files."""
        with suppress(CheckpointError):  # is raised where the file is needed
            states = {path.name: _state_of(path) for path in self.paths}
            for name, digest in finished_digests(finished, states).items():
                self._add(name, digest, states[name])

    def _read_journals(self) -> None:
        """Take what other runs in that folder, and earlier ones, have hashed."""
        for path in sorted((self._out / WORK).glob(f"{JOURNAL}*.json")):
            self._read_journal(path)

    def _read_journal(self, path: Path) -> None:
        out = self._out
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            fingerprint, sources = found["fingerprint"], found["sources"]
            known = [(name, str(one["digest"]), _state_in(one["state"])) for name, one in sources.items()]
        except FileNotFoundError:  # another run has finished meanwhile
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LaidOutError(f"{path}: damaged ({error}); remove {out} to begin again") from None
        differences = [name for name in self._fingerprint if fingerprint.get(name) != self._fingerprint[name]]
        if differences:
            raise LaidOutError(
                f"{out} holds an unfinished run that differs in: {', '.join(differences)}. Repeat that one's command, "
                "choose another folder, or remove this one"
            )
        with self._lock:
            for name, digest, state in known:
                self._add(name, digest, state)

    def _add(self, name: str, digest: str, state: FileState) -> None:
        """Add a file's digest, unless another one is known."""
        known = self._known.setdefault(name, _Known(digest, set()))
        if known.digest == digest:
            known.states.add(state)

    def _write_journal(self) -> None:
        sources = {
            name: {"state": self._begun.get(name) or max(one.states), "digest": one.digest}
            for name, one in self._known.items()
        }
        text = json.dumps({"fingerprint": self._fingerprint, "sources": sources}, indent=1)
        write_whole(self._journal, text.encode())


def _state_in(numbers: Sequence[int]) -> FileState:
    """Return a state as a journal holds it."""
    size, modified, inode, changed = numbers
    return size, modified, inode, changed


def _state_of(path: Path) -> FileState:
    try:
        return state_of_file(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None

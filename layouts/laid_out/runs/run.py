"""Run over a checkpoint's layers and ranks, on all cores, resumable."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any, Final, Protocol

import torch

from preshuffle.layouts.checkpoint import MappedShards
from preshuffle.layouts.laid_out.files.errors import LaidOutError, StaleError
from preshuffle.layouts.laid_out.files.finished_file import read_finished
from preshuffle.layouts.laid_out.files.manifest import WORK, FileRecord, SourceRecord
from preshuffle.layouts.laid_out.files.progress import CancelledRun, Progress
from preshuffle.layouts.laid_out.files.tensor_writer import PARTIAL, TensorWriter, writing
from preshuffle.layouts.laid_out.runs.other_tensors import OtherFile, copy_tensors, room_for
from preshuffle.layouts.laid_out.runs.rank_layer import description_of, lay_out_rank_layer
from preshuffle.layouts.laid_out.runs.run_plan import RankLayer, RunPlan

_LOCK: Final = "lock"
_UNSEALED: Final = 4
"""Files that may wait for the disk at once."""


class SourceDigests(Protocol):
    """Digests of a checkpoint's shards."""

    def digest(self, path: Path) -> str:
        """Return the digest of a shard."""

    def check_unchanged(self, paths: Iterable[Path]) -> None:
        """Check that shards are still those that were hashed."""

    def records(self) -> tuple[SourceRecord, ...]:
        """Return every shard."""


class LayerSource(Protocol):
    """Provider of layers' stored tensors."""

    def shards(self) -> MappedShards:
        """Return the files to read from."""

    def begin(self, layer: int) -> None:
        """Make a layer's tensors readable; called before each of its units."""

    def end(self, layer: int) -> None:
        """Let a layer go; called when its units are done."""


class Run:
    """Work of one run, spread over threads.

    Units of work are independent. What they need of the checkpoint is hashed first, one layer ahead.
    """

    def __init__(
        self, plan: RunPlan, out: Path, digests: SourceDigests, source: LayerSource, progress: Progress, workers: int
    ) -> None:
        """Prepare a run; nothing is written yet."""
        self.plan, self.out, self.digests, self.progress = plan, out, digests, progress
        self.source = source
        self.records: dict[str, FileRecord] = {}
        self._workers = workers
        self._lock = Lock()
        self._hashes: dict[Path, Future[str]] = {}
        self._remaining: dict[int, int] = {}
        self._unsealed = BoundedSemaphore(_UNSEALED)
        self._tasks: list[Future[Any]] = []

    def run(self, units: Iterable[RankLayer], others: Iterable[OtherFile], unread: Iterable[Path] = ()) -> None:
        """Write every file that is not there yet.

        Args:
            units: layers of ranks.
            others: files of other tensors.
            unread: shards that no unit reads, and whose digest is needed all the same.

        Raises:
            CheckpointError: the checkpoint is damaged, or changed meanwhile.
            LayoutError: tensors are not what a decision takes.
            LaidOutError: a file cannot be written, or is there and another one.
        """
        threads = torch.get_num_threads()
        with (
            ThreadPoolExecutor(self._workers, "lay-out", initializer=torch.set_num_threads, initargs=(1,)) as workers,
            ThreadPoolExecutor(_UNSEALED, "seal") as sealers,
        ):
            try:
                self._submit(workers, sealers, units, others, unread)
                self._wait()
            except BaseException:
                self.progress.stop()
                for task in self._tasks:
                    task.cancel()
                raise
            finally:
                torch.set_num_threads(threads)

    def _submit(
        self,
        workers: ThreadPoolExecutor,
        sealers: ThreadPoolExecutor,
        units: Iterable[RankLayer],
        others: Iterable[OtherFile],
        unread: Iterable[Path],
    ) -> None:
        by_layer: dict[int, list[RankLayer]] = {}
        for unit in units:
            by_layer.setdefault(unit.layer, []).append(unit)
        self._tasks = []
        self._remaining = {layer: len(found) for layer, found in by_layer.items()}
        layers = list(by_layer)
        for number, layer in enumerate(layers):
            for ahead in layers[number : number + 2]:
                self._hash(workers, self.plan.files_of(ahead))
            for unit in by_layer[layer]:
                self._tasks.append(workers.submit(self._lay_out, unit, sealers))
        for other in others:
            self._hash(workers, [other.source])
            self._tasks.append(workers.submit(self._copy, other, sealers))
        self._hash(workers, unread)

    def _hash(self, workers: ThreadPoolExecutor, paths: Iterable[Path]) -> None:
        for path in paths:
            if path not in self._hashes:  # hashed once, by whichever task comes first
                self._hashes[path] = workers.submit(self.digests.digest, path)
                self._tasks.append(self._hashes[path])

    def _wait(self) -> None:
        """Wait for all tasks, those that tasks add included; raise the first error."""
        pending = set(self._tasks)
        seen = 0
        while pending or seen < len(self._tasks):
            with self._lock:
                pending |= set(self._tasks[seen:])
                seen = len(self._tasks)
            done, pending = wait(pending, return_when=FIRST_EXCEPTION)
            errors = [error for task in done if (error := task.exception()) is not None]
            first = next((error for error in errors if not isinstance(error, CancelledRun)), None)
            if first is not None:
                raise first

    def _lay_out(self, unit: RankLayer, sealers: ThreadPoolExecutor) -> None:
        paths = self.plan.files_of(unit.layer)
        digests = {path.name: self._hashes[path].result() for path in paths}
        key = unit.key(digests)
        if not self._is_finished(unit.file, key):
            self.source.begin(unit.layer)
            description = description_of(unit, key, self.plan.checkpoint.registry.digest, digests)
            count = len(unit.decision.tensors) + len(unit.plan.entries)

            def work(writer: TensorWriter) -> None:
                lay_out_rank_layer(unit, self.plan, self.source.shards(), writer, self.progress.advance)
                self.digests.check_unchanged(paths)

            ranks = {"layer": unit.layer, "tp_rank": unit.tp_rank, "ep_rank": unit.ep_rank}
            self._write(unit.file, key, count, description, ranks, work, sealers)
        with self._lock:
            self._remaining[unit.layer] -= 1
            done = not self._remaining[unit.layer]
        if done:
            self.source.end(unit.layer)

    def _copy(self, other: OtherFile, sealers: ThreadPoolExecutor) -> None:
        digest = self._hashes[other.source].result()
        key = other.key(digest)
        if self._is_finished(other.file, key):
            return

        def work(writer: TensorWriter) -> None:
            copy_tensors(other, self.source.shards(), writer, self.progress.advance)
            self.digests.check_unchanged([other.source])

        description = {"key": key, "sources": {other.source.name: digest}}
        self._write(other.file, key, len(other.names), description, {}, work, sealers)

    def _is_finished(self, file: str, key: str) -> bool:
        record = read_finished(self.out / file, key)
        if record is None:
            return False
        self.records[file] = record
        self.progress.resume(file, sum(one.nbytes for one in record.tensors))
        return True

    def _write(
        self,
        file: str,
        key: str,
        tensors: int,
        description: Mapping[str, Any],
        ranks: Mapping[str, int],
        work: Callable[[TensorWriter], None],
        sealers: ThreadPoolExecutor,
    ) -> None:
        self.progress.advance(0)
        self._unsealed.acquire()
        writer = None
        try:
            writer = TensorWriter(self.out / file, tensors, description)
            work(writer)
            with self._lock:
                sealing = sealers.submit(self._seal, writer, file, key, ranks)
                sealing.add_done_callback(lambda task: self._give_up(writer) if task.cancelled() else None)
                self._tasks.append(sealing)
        except BaseException:
            if writer is not None:
                writer.abandon()
            self._unsealed.release()
            raise

    def _seal(self, writer: TensorWriter, file: str, key: str, ranks: Mapping[str, int]) -> None:
        try:
            size, header, tensors = writer.seal()
        finally:
            self._give_up(writer)
        self.records[file] = FileRecord(file=file, key=key, size=size, header=header, tensors=tensors, **ranks)
        self.progress.tell("file", file)

    def _give_up(self, writer: TensorWriter) -> None:
        """Remove an unsealed file, and let the next one begin."""
        writer.abandon()
        self._unsealed.release()


@contextmanager
def exclusive_folder(out: Path, expected: Iterable[str]) -> Iterator[None]:
    """Use an output folder alone; remove what killed runs left half-written.

    Args:
        out: created if needed.
        expected: files that the run writes.

    Raises:
        LaidOutError: another process uses it, or it cannot be made.
        StaleError: it holds files of another run.
    """
    with writing(out):
        (out / WORK).mkdir(parents=True, exist_ok=True)
        handle = os.open(out / WORK / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LaidOutError(f"{out}: another process writes it") from None
        names = set(expected)
        for path in out.rglob(f"*{PARTIAL}"):
            path.unlink()
        strange = [path.name for path in out.glob("*.safetensors") if path.name not in names]
        if strange:
            raise StaleError(f"{out} holds files of another run, such as {min(strange)}; choose another folder")
        yield
    finally:
        os.close(handle)


def check_room(out: Path, needed: int) -> None:
    """Check that what is missing fits the file system.

    Raises:
        LaidOutError: it does not; says how much is missing.
    """
    free = room_for(out)
    if needed > free:
        raise LaidOutError(f"{out}: {needed:,} bytes are needed, and {free:,} are free; nothing was written")

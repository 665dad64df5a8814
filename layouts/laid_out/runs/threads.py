"""Executor that writes units on threads of this process."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from itertools import groupby
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any, Final

import torch

from preshuffle.layouts.laid_out.files.finished_file import read_finished
from preshuffle.layouts.laid_out.files.manifest import FileRecord
from preshuffle.layouts.laid_out.files.progress import CancelledRun
from preshuffle.layouts.laid_out.files.tensor_writer import TensorWriter
from preshuffle.layouts.laid_out.runs.executor import RunContext
from preshuffle.layouts.laid_out.runs.run_plan import RankLayer
from preshuffle.layouts.laid_out.runs.unit_files import Unit, UnitHead, fill, seal, sources_of

_UNSEALED: Final = 4
"""Files that may wait for the disk at once."""


class ThreadExecutor:
    """Writes units on threads of this process."""

    def __init__(self, workers: int) -> None:
        """Take so many threads."""
        self._workers = workers

    def run(self, context: RunContext, units: Iterable[Unit], unread: Iterable[Path] = ()) -> dict[str, FileRecord]:
        """Write every file that is not there yet; see ``Executor``."""
        return _ThreadedRun(context, self._workers).run(units, unread)


def core_count() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


class _ThreadedRun:
    """Work of one run, spread over threads.

    What units need of the checkpoint is hashed first, one group of shards ahead.
    """

    def __init__(self, context: RunContext, workers: int) -> None:
        self.plan, self.out, self.digests = context.plan, context.out, context.digests
        self.progress, self.source, self.states = context.progress, context.source, context.states
        self.records: dict[str, FileRecord] = {}
        self._workers = workers
        self._lock = Lock()
        self._hashes: dict[Path, Future[str]] = {}
        self._remaining: dict[int, int] = {}
        self._unsealed = BoundedSemaphore(_UNSEALED)
        self._tasks: list[Future[Any]] = []

    def run(self, units: Iterable[Unit], unread: Iterable[Path]) -> dict[str, FileRecord]:
        threads = torch.get_num_threads()
        with (
            ThreadPoolExecutor(self._workers, "lay-out", initializer=torch.set_num_threads, initargs=(1,)) as workers,
            ThreadPoolExecutor(_UNSEALED, "seal") as sealers,
        ):
            try:
                self._submit(workers, sealers, list(units), unread)
                self._wait()
            except BaseException:
                self.progress.stop()
                for task in self._tasks:
                    task.cancel()
                raise
            finally:
                torch.set_num_threads(threads)
        return self.records

    def _submit(
        self, workers: ThreadPoolExecutor, sealers: ThreadPoolExecutor, units: list[Unit], unread: Iterable[Path]
    ) -> None:
        for unit in units:
            if isinstance(unit, RankLayer):
                self._remaining[unit.layer] = self._remaining.get(unit.layer, 0) + 1
        groups = [(paths, list(some)) for paths, some in groupby(units, lambda unit: sources_of(unit, self.plan))]
        for number, (_, some) in enumerate(groups):
            for paths, _ in groups[number : number + 2]:
                self._hash(workers, paths)
            for unit in some:
                self._tasks.append(workers.submit(self._write, unit, sealers))
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

    def _write(self, unit: Unit, sealers: ThreadPoolExecutor) -> None:
        paths = sources_of(unit, self.plan)
        digests = {path.name: self._hashes[path].result() for path in paths}
        head = UnitHead.of(unit, digests, self.plan.checkpoint.registry.digest)
        if not self._is_finished(unit, head):
            self._fill(unit, head, paths, sealers)
        if isinstance(unit, RankLayer):
            with self._lock:
                self._remaining[unit.layer] -= 1
                done = not self._remaining[unit.layer]
            if done:
                self.source.end(unit.layer)

    def _is_finished(self, unit: Unit, head: UnitHead) -> bool:
        record = read_finished(self.out / unit.file, head.key)
        if record is None:
            return False
        self.records[unit.file] = record
        self.progress.resume(unit.file, sum(one.nbytes for one in record.tensors))
        return True

    def _fill(self, unit: Unit, head: UnitHead, paths: list[Path], sealers: ThreadPoolExecutor) -> None:
        self.progress.advance(0)
        if isinstance(unit, RankLayer):
            self.source.begin(unit.layer)
        self._unsealed.acquire()
        writer = None
        try:
            writer = TensorWriter(self.out / unit.file, head.tensors, head.description)
            fill(unit, self.plan, self.source.shards(), writer, self.progress.advance)
            self.digests.check_unchanged(paths)
            with self._lock:
                sealing = sealers.submit(self._seal, writer, unit, head)
                sealing.add_done_callback(lambda task: self._give_up(writer) if task.cancelled() else None)
                self._tasks.append(sealing)
        except BaseException:
            if writer is not None:
                writer.abandon()
            self._unsealed.release()
            raise

    def _seal(self, writer: TensorWriter, unit: Unit, head: UnitHead) -> None:
        try:
            self.records[unit.file], self.states[unit.file] = seal(writer, unit, head)
        finally:
            self._give_up(writer)
        self.progress.tell("file", unit.file)

    def _give_up(self, writer: TensorWriter) -> None:
        """Remove an unsealed file, and let the next one begin."""
        writer.abandon()
        self._unsealed.release()

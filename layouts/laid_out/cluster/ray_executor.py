"""Executor that writes units by tasks of a Ray cluster."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

from preshuffle.layouts.laid_out.cluster.connection import check_installed, connected
from preshuffle.layouts.laid_out.cluster.nodes import check_nodes, expectation, progress_board
from preshuffle.layouts.laid_out.cluster.unit_task import UnitSources, hash_shard, write_unit
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.manifest import FileRecord
from preshuffle.layouts.laid_out.files.progress import Progress
from preshuffle.layouts.laid_out.runs.executor import RunContext
from preshuffle.layouts.laid_out.runs.other_tensors import OtherFile
from preshuffle.layouts.laid_out.runs.output_folder import remove_partials
from preshuffle.layouts.laid_out.runs.run_plan import RankLayer
from preshuffle.layouts.laid_out.runs.unit_files import Unit, sources_of
from preshuffle.registry import PreshuffleError

RETRIES: Final = 5
_EVERY: Final = 0.5
"""Seconds between two looks at the progress."""
_CANCELLING: Final = 5.0
"""Seconds for which tasks may take to remove what they have half-written."""


class RayExecutor:
    """Writes units by tasks of a Ray cluster.

    Each task is one thread on one processor. Ray places tasks on different nodes, and repeats those whose node or
    process died. All nodes need the same preshuffle, and the checkpoint and the output at the same paths.
    """

    def __init__(self, address: str | None = None, workers: int | None = None, retries: int = RETRIES) -> None:
        """Connect to nothing yet: a run does, or ``with`` does for several.

        Args:
            address: of the cluster, as ``connected`` takes it.
            workers: tasks at once; as many as the cluster has processors if None.
            retries: how often a task is repeated whose node or process died.

        Raises:
            LaidOutError: Ray is not installed.
        """
        check_installed()
        self._address, self._workers, self._retries = address, workers, retries
        self._ray: Any = None
        self._connection = ExitStack()

    def __enter__(self) -> Self:
        """Connect to the cluster.

        Raises:
            LaidOutError: it cannot be reached.
        """
        self._ray = self._connection.enter_context(connected(self._address))
        return self

    def __exit__(self, *_: object) -> None:
        """End the connection, unless this process had it before."""
        self._ray = None
        self._connection.close()

    def run(self, context: RunContext, units: Iterable[Unit], unread: Iterable[Path] = ()) -> dict[str, FileRecord]:
        """Write every file that is not there yet; see ``Executor``.

        Raises:
            LaidOutError: also where the cluster cannot be reached, a node is not like this machine, or tasks end
                without a result.
        """
        units, unread = list(units), [path for path in unread if context.digests.known(path) is None]
        if not units and not unread:
            return {}
        if self._ray is None:
            with self:
                return self._run(context, units, unread)
        return self._run(context, units, unread)

    def _run(self, context: RunContext, units: list[Unit], unread: list[Path]) -> dict[str, FileRecord]:
        run = _RayRun(self._ray, context, self._workers, self._retries)
        run.start()
        records = run.run(units, unread)
        remove_partials(context.out)  # of tasks whose node died
        return records


class _RayRun:
    """Tasks of one run."""

    def __init__(self, ray: Any, context: RunContext, workers: int | None, retries: int) -> None:
        self._ray, self._context = ray, context
        self._workers, self._retries = workers, retries
        self._out = context.out.absolute()
        self._records: dict[str, FileRecord] = {}
        self._hashes: dict[Path, Any] = {}
        self._sources: dict[tuple[Path, ...], tuple[Any, list[Path]]] = {}
        self._pending: dict[Any, Unit | Path] = {}
        self._written = _Written(context.progress)
        self._reading: Any = None
        self._last_read = time.monotonic()

    def start(self) -> None:
        """Check the nodes, and start what takes the progress."""
        checkpoint = self._context.plan.checkpoint
        shards = {path.absolute() for path in checkpoint.shards.values()}
        expected = expectation(self._out, shards)
        check_nodes(self._ray, expected)
        self._expected = self._ray.put(expected)
        self._board = progress_board(self._ray)

    def run(self, units: list[Unit], unread: list[Path]) -> dict[str, FileRecord]:
        """Submit tasks and wait for them."""
        waiting = self._submit(units, unread)
        try:
            more = True
            while more or self._pending:
                while more and (self._workers is None or len(self._pending) < self._workers):
                    more = next(waiting, None) is not None
                if self._pending:
                    self._wait()
        except BaseException:
            self._cancel()
            raise
        return self._records

    def _submit(self, units: list[Unit], unread: list[Path]) -> Iterator[bool]:
        """Submit one task at each step: hashes before the units that need them."""
        for unit in units:
            paths = sources_of(unit, self._context.plan)
            for path in paths:
                yield from self._hash(path)
            self._pending[self._write(unit, paths)] = unit
            yield True
        for path in unread:
            yield from self._hash(path)

    def _hash(self, path: Path) -> Iterator[bool]:
        if path in self._hashes:
            return
        known = self._context.digests.known(path)
        if known is not None:
            self._hashes[path] = known
            return
        state = self._context.digests.state(path)
        task = self._task(hash_shard, f"hash {path.name}")
        self._hashes[path] = task.remote(path.absolute(), state, self._expected)
        self._pending[self._hashes[path]] = path
        yield True

    def _write(self, unit: Unit, paths: list[Path]) -> Any:
        key = tuple(paths) if not isinstance(unit, RankLayer) else (*paths, Path(str(unit.layer)))
        if key not in self._sources:
            self._sources[key] = self._ray.put(self._sources_of(unit, paths))
        digests = [self._hashes[path] for path in paths]
        if isinstance(unit, OtherFile):  # a task has another working directory
            unit = replace(unit, source=unit.source.absolute())
        task = self._task(write_unit, unit.file)
        return task.remote(unit, self._sources[key], self._out, self._expected, self._board, *digests)

    def _sources_of(self, unit: Unit, paths: list[Path]) -> UnitSources:
        plan, digests = self._context.plan, self._context.digests
        names = plan.names_of(unit.layer) if isinstance(unit, RankLayer) else ()
        shards = plan.checkpoint.shards
        states = {path.absolute(): state for path in paths if (state := digests.state(path)) is not None}
        inherited = {key: lost for key, lost in plan.inherited.items() if key[0] == getattr(unit, "layer", None)}
        return UnitSources(
            plan.checkpoint.folder.absolute(),
            {name: shards[name].absolute() for name in names},
            states,
            inherited,
            plan.checkpoint.registry.digest,
        )

    def _task(self, function: Any, name: str) -> Any:
        return self._ray.remote(function).options(
            name=name, num_cpus=1, max_retries=self._retries, retry_exceptions=False, scheduling_strategy="SPREAD"
        )

    def _wait(self) -> None:
        """Wait a moment for tasks, and take what is done."""
        if self._reading is None and time.monotonic() - self._last_read >= _EVERY:
            self._reading, self._last_read = self._board.read.remote(), time.monotonic()
        refs = [*([self._reading] if self._reading is not None else []), *self._pending]
        done, _ = self._ray.wait(refs, num_returns=1, timeout=_EVERY)
        for ref in done:
            if ref == self._reading:
                self._report()
            else:
                work = self._pending.pop(ref)
                self._take(work, self._result(ref, work))

    def _report(self) -> None:
        """Give the progress what tasks have reported."""
        reading, self._reading = self._reading, None
        with suppress(self._ray.exceptions.RayError):  # a report less
            for file, nbytes in self._ray.get(reading).items():
                self._written.report(file, nbytes)

    def _result(self, ref: Any, work: Unit | Path) -> Any:
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, PreshuffleError):
                raise cause from None
            raise LaidOutError(f"{_name_of(work)}: its task failed: {_last_line(error)}") from None
        except self._ray.exceptions.RayError as error:
            raise LaidOutError(
                f"{_name_of(work)}: its task ended {self._retries + 1} times without a result: {_last_line(error)}; "
                "run the same command again, it resumes"
            ) from None

    def _take(self, work: Unit | Path, result: Any) -> None:
        progress = self._context.progress
        if isinstance(work, Path):
            self._context.digests.record(work, result)
            return
        record, was_there = result
        self._records[work.file] = record
        size = sum(tensor.nbytes for tensor in record.tensors)
        if was_there:
            self._written.report(work.file, 0)
            progress.resume(work.file, size)
        else:
            self._written.report(work.file, size)
            progress.tell("file", work.file)
        self._written.finish(work.file)

    def _cancel(self) -> None:
        """Stop all tasks; they remove what they have half-written."""
        refs = list(self._pending)
        with suppress(self._ray.exceptions.RayError):  # the cluster may be what was lost
            for ref in refs:
                self._ray.cancel(ref)
            if refs:
                self._ray.wait(refs, num_returns=len(refs), timeout=_CANCELLING)


class _Written:
    """Bytes of files as they were reported, given to the progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._known: dict[str, int] = {}
        self._finished: set[str] = set()

    def report(self, file: str, nbytes: int) -> None:
        if file not in self._finished:
            self._progress.advance(nbytes - self._known.get(file, 0))
            self._known[file] = nbytes

    def finish(self, file: str) -> None:
        self._finished.add(file)


def _name_of(work: Unit | Path) -> str:
    return work.name if isinstance(work, Path) else work.file


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__

"""Executor that writes units by tasks of a Ray cluster."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Self

from preshuffle.layouts.laid_out.cluster.connection import check_installed, connected
from preshuffle.layouts.laid_out.cluster.nodes import NodeChecks, check_nodes, expectation
from preshuffle.layouts.laid_out.cluster.partial_sizes import partial_sizes
from preshuffle.layouts.laid_out.cluster.ray_tasks import NamedWork, RayTasks
from preshuffle.layouts.laid_out.cluster.unit_task import UnitSources, hash_piece, write_layer, write_unit
from preshuffle.layouts.laid_out.files.manifest import FileRecord
from preshuffle.layouts.laid_out.files.progress import Progress
from preshuffle.layouts.laid_out.runs.executor import RunContext
from preshuffle.layouts.laid_out.runs.other_tensors import OtherFile
from preshuffle.layouts.laid_out.runs.output_folder import remove_partials
from preshuffle.layouts.laid_out.runs.run_plan import RankLayer
from preshuffle.layouts.laid_out.runs.shard_pieces import PiecewiseDigests, ShardPiece
from preshuffle.layouts.laid_out.runs.unit_files import Unit, sources_of
from preshuffle.layouts.stamps import FileState
from preshuffle.registry import PreshuffleError

RETRIES: Final = 5
_EVERY: Final = 0.5
"""Seconds between two looks at the progress."""


class RayExecutor:
    """Writes units by tasks of a Ray cluster.

    Each task is one thread on one processor. Ray places tasks on different nodes, and repeats those whose node or
    process died. All nodes need the same preshuffle, and the checkpoint and the output at the same paths.
    """

    def __init__(self, address: str | None = None, workers: int | None = None, retries: int = RETRIES) -> None:
        """Connect to nothing yet: a run does, or ``with`` does for several.

        Args:
            address: of the cluster, as ``connected`` takes it.
            workers: tasks at once; what keeps the cluster's processors busy if None.
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
        records = _RayRun(self._ray, context, self._workers, self._retries).run(units, unread)
        remove_partials(context.out)  # of tasks whose node died
        return records


class _RayRun:
    """Tasks of one run.

    Shards are hashed one group ahead of the units that read them, in pieces, so that no processor waits for a digest.
    """

    def __init__(self, ray: Any, context: RunContext, workers: int | None, retries: int) -> None:
        self._ray, self._context = ray, context
        self._tasks = RayTasks(ray, workers, retries)
        self._digests = PiecewiseDigests(context.digests)
        self._out = context.out.absolute()
        self._records: dict[str, FileRecord] = {}
        self._shipped: dict[tuple[Path, ...], Any] = {}
        self._maker: Any = None
        self._written = _Written(context.progress)
        self._last_look = time.monotonic()

    def run(self, units: list[Unit], unread: list[Path]) -> dict[str, FileRecord]:
        """Submit tasks and wait for them; nodes are checked meanwhile, and by their first task."""
        expected = expectation(self._out, [path.absolute() for path in self._context.source.files()])
        checks = check_nodes(self._ray, expected)
        self._expected, maker = self._ray.put(expected), self._context.source.maker
        self._maker = self._ray.put(maker) if maker is not None else None
        try:
            self._work(self._steps(units, unread), checks)
            checks.finish()
        except PreshuffleError:
            self._tasks.cancel()
            checks.finish()  # what is wrong with a node says more than what failed there
            raise
        except BaseException:
            self._tasks.cancel()
            raise
        return self._records

    def _work(self, steps: Iterator[bool], checks: NodeChecks) -> None:
        more = True
        while more or self._tasks:
            submitted: bool | None = True
            while submitted and self._tasks.has_room():
                submitted = next(steps, None)
            more = submitted is not None
            for work, result in self._tasks.done(_EVERY):
                self._take(work, result)
            checks.poll()
            self._look()

    def _steps(self, units: list[Unit], unread: list[Path]) -> Iterator[bool]:
        """Submit a task at each step; yield False where something must be done first."""
        plan = self._context.plan
        groups = [(paths, list(some)) for paths, some in groupby(units, lambda unit: sources_of(unit, plan))]
        needed = [paths for paths, _ in groups] + [unread]
        pieces = deque(
            (number, piece)
            for number, paths in enumerate(needed)
            for path in paths
            for piece in self._digests.pieces(path)
        )
        for number, (paths, some) in enumerate(groups):
            while pieces and pieces[0][0] <= number + 1:
                yield self._hash(pieces.popleft()[1])
            while any(self._context.digests.known(path) is None for path in paths):
                yield self._hash(pieces.popleft()[1]) if pieces else False
            if self._maker is not None:
                yield self._write_layer(some, paths)
            else:
                for unit in some:
                    yield self._write(unit, paths)
        for _, piece in pieces:
            yield self._hash(piece)

    def _hash(self, piece: ShardPiece) -> bool:
        path, state = piece.path.absolute(), self._context.digests.state(piece.path)
        self._tasks.submit(NamedWork(piece.name, piece), hash_piece, path, piece.extent, state, self._expected)
        return True

    def _write(self, unit: Unit, paths: list[Path]) -> bool:
        work = NamedWork(unit.file, (unit,))
        if isinstance(unit, OtherFile):  # a task has another working directory
            unit = replace(unit, source=unit.source.absolute())
        self._tasks.submit(work, write_unit, unit, self._sources(unit, paths), self._out, self._expected)
        return True

    def _write_layer(self, units: list[Unit], paths: list[Path]) -> bool:
        """Write the files of a layer by one task, since its stored tensors are made for them."""
        first, layer = units[0], getattr(units[0], "layer", 0)
        work = NamedWork(f"layer {layer}", tuple(units))
        sources, maker = self._sources(first, paths), self._maker
        self._tasks.submit(work, write_layer, units, layer, sources, maker, self._out, self._expected)
        return True

    def _sources(self, unit: Unit, paths: list[Path]) -> Any:
        key = tuple(paths) if not isinstance(unit, RankLayer) else (*paths, Path(str(unit.layer)))
        if key not in self._shipped:
            self._shipped[key] = self._ray.put(self._sources_of(unit, paths))
        return self._shipped[key]

    def _sources_of(self, unit: Unit, paths: list[Path]) -> UnitSources:
        plan, digests = self._context.plan, self._context.digests
        names = plan.names_of(unit.layer) if isinstance(unit, RankLayer) else ()
        shards = plan.checkpoint.shards
        return UnitSources(
            folder=plan.checkpoint.folder.absolute(),
            shards={name: shards[name].absolute() for name in names},
            states={path.absolute(): state for path in paths if (state := digests.state(path)) is not None},
            digests={path.name: digests.digest(path) for path in paths},
            inherited={key: lost for key, lost in plan.inherited.items() if key[0] == getattr(unit, "layer", None)},
            registry_digest=plan.checkpoint.registry.digest,
        )

    def _look(self) -> None:
        """Tell the progress how far the files are that tasks write."""
        if time.monotonic() - self._last_look >= _EVERY:
            self._last_look = time.monotonic()
            works = (work for work in self._tasks.subjects() if not isinstance(work, ShardPiece))
            for file, nbytes in partial_sizes(self._out, [unit for units in works for unit in units]).items():
                self._written.report(file, nbytes)

    def _take(self, work: tuple[Unit, ...] | ShardPiece, result: Any) -> None:
        if isinstance(work, ShardPiece):
            self._digests.add(work, result)
            return
        for unit, (record, state) in zip(work, result if self._maker is not None else [result], strict=True):
            self._take_file(unit.file, record, state)

    def _take_file(self, file: str, record: FileRecord, state: FileState | None) -> None:
        self._records[file] = record
        size = sum(tensor.nbytes for tensor in record.tensors)
        if state is None:
            self._written.report(file, 0)
            self._context.progress.resume(file, size)
        else:
            self._context.states[file] = state
            self._written.report(file, size)
            self._context.progress.tell("file", file)


class _Written:
    """Bytes of files as they were reported, given to the progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._known: dict[str, int] = {}

    def report(self, file: str, nbytes: int) -> None:
        self._progress.advance(nbytes - self._known.get(file, 0))
        self._known[file] = nbytes

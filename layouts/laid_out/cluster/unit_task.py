"""Units of work as tasks that run on any node."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from preshuffle.layouts.checkpoint import Checkpoint, CheckpointError, MappedShards
from preshuffle.layouts.laid_out.cluster.shipped import Expectation, check_node
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.finished_file import read_finished
from preshuffle.layouts.laid_out.files.manifest import FileRecord
from preshuffle.layouts.laid_out.files.tensor_writer import TensorWriter, synchronise_folder
from preshuffle.layouts.laid_out.runs.executor import LayerMaker
from preshuffle.layouts.laid_out.runs.run_plan import RunPlan
from preshuffle.layouts.laid_out.runs.unit_files import Unit, UnitHead, fill, seal
from preshuffle.layouts.stamps import FileState, Loss, row_sums_of_file
from preshuffle.registry import Registry


@dataclass(frozen=True)
class UnitSources:
    """What the units that read the same shards need of the run.

    Attributes:
        folder: the checkpoint's.
        shards: tensor name to the file that holds it.
        states: files as the driver sees them; none of those that are made for the units.
        digests: of the shards, by file name.
        inherited: as in ``RunPlan``.
        registry_digest: of the book that decided.
    """

    folder: Path
    shards: Mapping[str, Path]
    states: Mapping[Path, FileState]
    digests: Mapping[str, str]
    inherited: Mapping[tuple[int, str], tuple[Loss, ...]]
    registry_digest: str

    def plan(self) -> RunPlan:
        """Return as much of the run's plan as writing a unit needs."""
        checkpoint = Checkpoint(self.folder, {}, self.shards, 0, None, {}, Registry.default())
        return RunPlan(checkpoint, (), {}, self.inherited)

    def moved_to(self, folder: Path) -> UnitSources:
        """Return the same of shards in another folder."""
        return replace(self, shards={name: folder / path.name for name, path in self.shards.items()})

    def check_unchanged(self) -> None:
        """Check that this node sees the files that the driver sees.

        Raises:
            CheckpointError: one differs in size or time, or cannot be read.
        """
        for path, state in self.states.items():
            check_state(path, state)


def check_state(path: Path, state: FileState) -> None:
    """Check that a file has the driver's size and time.

    Inodes may differ between mounts.

    Raises:
        CheckpointError: it has not, or cannot be read.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    if (found.st_size, found.st_mtime_ns) != state[:2]:
        raise CheckpointError(f"{path}: changed while it was read; nothing of it is used")


def hash_piece(path: Path, extent: tuple[int, int], state: FileState, expected: Expectation) -> bytes:
    """Return a shard piece's sums, of which its digest is made.

    Raises:
        CheckpointError: it changes meanwhile.
        LaidOutError: this node is not like the driver.
    """
    _prepare(expected)
    check_state(path, state)
    sums = row_sums_of_file(path, extent)
    check_state(path, state)
    return sums


Written = tuple[FileRecord, FileState | None]
"""Record of a file, and the state in which it was written; None where it was there."""


def write_unit(unit: Unit, sources: UnitSources, out: Path, expected: Expectation) -> Written:
    """Write a unit's file, unless it is there.

    Repeating it is harmless: a file gets another name each time until it is whole, and the same bytes.

    Args:
        unit: which.
        sources: what it reads.
        out: the folder.
        expected: what this node must be like.
    """
    _prepare(expected)
    head = UnitHead.of(unit, sources.digests, sources.registry_digest)
    found = read_finished(out / unit.file, head.key)
    return (found, None) if found is not None else _write(unit, head, sources, out, _shards_of(expected))


def write_layer(
    units: Sequence[Unit], layer: int, sources: UnitSources, maker: LayerMaker, out: Path, expected: Expectation
) -> list[Written]:
    """Write the files of a layer whose stored tensors are made first.

    Args:
        units: all of the layer.
        layer: its number.
        sources: what they read; each attempt makes its shards in a folder of its own, beside theirs.
        maker: makes the layer's shards.
        out: the folder.
        expected: what this node must be like.
    """
    _prepare(expected)
    heads = [UnitHead.of(unit, sources.digests, sources.registry_digest) for unit in units]
    found = [read_finished(out / unit.file, head.key) for unit, head in zip(units, heads, strict=True)]
    beside = next(iter(sources.shards.values())).parent
    folder = beside.with_name(f"{beside.name}-{secrets.token_hex(4)}")
    shards = MappedShards()
    try:
        if None in found:
            maker.make(layer, folder)
        own = sources.moved_to(folder)
        return [
            (record, None) if record is not None else _write(unit, head, own, out, shards)
            for unit, head, record in zip(units, heads, found, strict=True)
        ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(expected: Expectation) -> None:
    check_this_node(expected)
    torch.set_num_threads(1)


def _write(unit: Unit, head: UnitHead, sources: UnitSources, out: Path, shards: MappedShards) -> Written:
    sources.check_unchanged()
    writer = TensorWriter(out / unit.file, head.tensors, head.description)
    try:
        fill(unit, sources.plan(), shards, writer, lambda nbytes: None)
        sources.check_unchanged()
        written = seal(writer, unit, head)
    finally:
        writer.abandon()
    synchronise_folder(out)
    return written


# Process-wide: the tasks of a run read the same pages one after the other, and mapping them costs as much as copying.
@lru_cache(maxsize=1)
def _shards_of(expected: Expectation) -> MappedShards:
    """Return the mapped shards of this process, for one run."""
    return MappedShards()


# Process-wide: a process of a cluster stays on its node, and nodes that come later are checked by their tasks.
@lru_cache(maxsize=1)
def _problems_here(expected: Expectation) -> tuple[str, ...]:
    return check_node(expected)[1]


def check_this_node(expected: Expectation) -> None:
    """Check, once a process, that this node is like the driver.

    Raises:
        LaidOutError: names the node and how it differs.
    """
    problems = _problems_here(expected)
    if problems:
        raise LaidOutError(f"node {os.uname().nodename}: {problems[0]}")

"""Executors: where the units of a run are written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from preshuffle.layouts.checkpoint import MappedShards
from preshuffle.layouts.laid_out.files.manifest import FileRecord, SourceRecord
from preshuffle.layouts.laid_out.files.progress import Progress
from preshuffle.layouts.laid_out.runs.run_plan import RunPlan
from preshuffle.layouts.laid_out.runs.unit_files import Unit
from preshuffle.layouts.stamps import FileState


class SourceDigests(Protocol):
    """Digests of a checkpoint's shards."""

    def digest(self, path: Path) -> str:
        """Return the digest of a shard, computed if needed."""

    def known(self, path: Path) -> str | None:
        """Return a shard's digest, None where it must be computed."""

    def state(self, path: Path) -> FileState | None:
        """Return a shard's state, None where it cannot change."""

    def record(self, path: Path, digest: str) -> None:
        """Record a digest that another process has computed."""

    def check_unchanged(self, paths: Iterable[Path]) -> None:
        """Check that shards are still those that were hashed."""

    def records(self) -> tuple[SourceRecord, ...]:
        """Return every shard."""


class LayerMaker(Protocol):
    """Makes a layer's stored tensors anew; other machines get it pickled."""

    def make(self, layer: int, folder: Path) -> None:
        """Write a layer's shards into a new folder.

        Raises:
            LaidOutError: what they are made of is damaged, or they cannot be written.
        """


class LayerSource(Protocol):
    """Provider of layers' stored tensors."""

    @property
    def maker(self) -> LayerMaker | None:
        """Return what makes a layer's files; None where they are there."""

    def files(self) -> list[Path]:
        """Return the files that every machine must see."""

    def shards(self) -> MappedShards:
        """Return the files to read from."""

    def begin(self, layer: int) -> None:
        """Make a layer's tensors readable; called before each of its units."""

    def end(self, layer: int) -> None:
        """Let a layer go; called when its units are done."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """What the units of a run have in common.

    Attributes:
        out: the folder that gets their files.
        states: of the files that this run wrote, by name.
    """

    plan: RunPlan
    out: Path
    digests: SourceDigests
    source: LayerSource
    progress: Progress
    states: dict[str, FileState] = field(default_factory=dict)


class Executor(Protocol):
    """Writes units, each into a file of its own.

    A unit's bytes depend on the unit alone, and a file that is there already is kept: units may be repeated, and
    spread over threads, processes and machines.
    """

    def run(self, context: RunContext, units: Iterable[Unit], unread: Iterable[Path] = ()) -> dict[str, FileRecord]:
        """Write every file that is not there yet.

        Args:
            context: what the units have in common.
            units: those that follow each other should read the same shards.
            unread: shards that no unit reads, and whose digest is needed all the same.

        Returns:
            Records of the units' files, by name.

        Raises:
            CheckpointError: the checkpoint is damaged, or changed meanwhile.
            LayoutError: tensors are not what a decision takes.
            LaidOutError: a file cannot be written, or is there and another one.
        """

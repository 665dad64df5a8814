"""Files of units: what decides their bytes, and how they are filled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preshuffle.layouts.checkpoint import MappedShards
from preshuffle.layouts.laid_out.files.manifest import FileRecord
from preshuffle.layouts.laid_out.files.tensor_writer import TensorWriter, writing
from preshuffle.layouts.laid_out.runs.other_tensors import OtherFile, copy_tensors
from preshuffle.layouts.laid_out.runs.rank_layer import Advance, description_of, lay_out_rank_layer
from preshuffle.layouts.laid_out.runs.run_plan import RankLayer, RunPlan
from preshuffle.layouts.stamps import FileState, state_of_file

Unit = RankLayer | OtherFile
"""Independent piece of a run, with a file of its own."""


@dataclass(frozen=True, slots=True)
class UnitHead:
    """What is known of a unit's file before it is written.

    Attributes:
        key: of everything that decides its bytes.
        tensors: how many it holds, at most.
        description: what its header says of it.
        ranks: layer and rank, where it is one's.
    """

    key: str
    tensors: int
    description: Mapping[str, Any]
    ranks: Mapping[str, int]

    @staticmethod
    def of(unit: Unit, digests: Mapping[str, str], registry_digest: str) -> UnitHead:
        """Describe a unit's file.

        Args:
            unit: which.
            digests: of the shards that it reads, by name.
            registry_digest: of the book that decided.
        """
        sources = dict(digests)
        if isinstance(unit, OtherFile):
            key = unit.key(sources[unit.source.name])
            return UnitHead(key, tensors_of(unit), {"key": key, "sources": sources}, {})
        key = unit.key(sources)
        ranks = {"layer": unit.layer, "tp_rank": unit.tp_rank, "ep_rank": unit.ep_rank}
        return UnitHead(key, tensors_of(unit), description_of(unit, key, registry_digest, sources), ranks)


def tensors_of(unit: Unit) -> int:
    """Return how many tensors a unit's file holds, at most."""
    return len(unit.names) if isinstance(unit, OtherFile) else len(unit.decision.tensors) + len(unit.plan.entries)


def sources_of(unit: Unit, plan: RunPlan) -> list[Path]:
    """Return the shards that a unit reads, in order.

    Raises:
        CheckpointError: a tensor is in no shard.
    """
    return [unit.source] if isinstance(unit, OtherFile) else plan.files_of(unit.layer)


def fill(unit: Unit, plan: RunPlan, shards: MappedShards, writer: TensorWriter, advance: Advance) -> None:
    """Write a unit's tensors into its file.

    Raises:
        CheckpointError: a tensor is missing, cut short or of another shape or dtype.
        LayoutError: a tensor is not what the decision takes.
    """
    if isinstance(unit, OtherFile):
        copy_tensors(unit, shards, writer, advance)
    else:
        lay_out_rank_layer(unit, plan, shards, writer, advance)


def seal(writer: TensorWriter, unit: Unit, head: UnitHead) -> tuple[FileRecord, FileState]:
    """Finish a unit's file; it appears under its name.

    Returns:
        The file's record, and its state while nobody else has written to it.

    Raises:
        LaidOutError: it cannot be written.
    """
    size, header, tensors = writer.seal()
    record = FileRecord(file=unit.file, key=head.key, size=size, header=header, tensors=tensors, **head.ranks)
    with writing(writer.path):
        return record, state_of_file(writer.path)

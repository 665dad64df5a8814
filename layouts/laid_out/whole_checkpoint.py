"""Lay a whole checkpoint out ahead."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from preshuffle.layouts.checkpoint import Checkpoint, Identity, MappedShards, ShardFile, is_remote
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.finished_manifest import FinishedManifest
from preshuffle.layouts.laid_out.files.manifest import (
    FORMAT,
    MANIFEST,
    WORK,
    CopiedRecord,
    FileRecord,
    Manifest,
    SourceRecord,
    manifest_key,
)
from preshuffle.layouts.laid_out.files.progress import Listener, Progress
from preshuffle.layouts.laid_out.files.rank_states import write_rank_index
from preshuffle.layouts.laid_out.files.seal import BLANK
from preshuffle.layouts.laid_out.files.tensor_writer import synchronise_folder, write_whole
from preshuffle.layouts.laid_out.remote_source import fetch_for_run, identified
from preshuffle.layouts.laid_out.runs.executor import Executor, RunContext
from preshuffle.layouts.laid_out.runs.other_tensors import OtherFile, copy_headers, copy_small_files, small_files
from preshuffle.layouts.laid_out.runs.output_folder import (
    check_apart,
    check_names,
    check_output,
    check_room,
    exclusive_folder,
)
from preshuffle.layouts.laid_out.runs.run_plan import RunPlan, why_joined
from preshuffle.layouts.laid_out.runs.sources import JOURNAL, Sources
from preshuffle.layouts.laid_out.runs.threads import ThreadExecutor
from preshuffle.layouts.laid_out.runs.unit_files import Unit, sources_of
from preshuffle.layouts.laid_out.unfetched import UnfetchedShards
from preshuffle.layouts.stamps import remember_states
from preshuffle.registry import Registry
from preshuffle.registry.values.finding import FindingCode

Keep = Literal["scales", "all", "none"]
"""Which of the experts' tensors are kept as they are, where laid-out bytes do not restore them."""
_KEPT: Final = "kept"


class CheckpointLayers:
    """Layers of a checkpoint's own files: always readable."""

    maker = None

    def __init__(self, shards: MappedShards, paths: Iterable[Path]) -> None:
        """Read from these files."""
        self._shards, self._paths = shards, sorted(set(paths))

    def files(self) -> list[Path]:
        """Return the checkpoint's shards."""
        return self._paths

    def shards(self) -> MappedShards:
        """Return the files to read from."""
        return self._shards

    def begin(self, layer: int) -> None:
        """Do nothing: the files are there."""

    def end(self, layer: int) -> None:
        """Do nothing: the files stay."""


def lay_out_checkpoint(
    checkpoint: Checkpoint | Path | str,
    out: Path | str,
    *,
    registry: Registry | None = None,
    others: bool = True,
    keep: Keep = "scales",
    workers: int | None = None,
    executor: Executor | None = None,
    allow: Collection[FindingCode] = (),
    listener: Listener | None = None,
    **fields: Any,
) -> Manifest:
    """Lay all MoE layers of a checkpoint out, for every rank.

    Killed at any moment, the same call resumes. A file appears under its name when it is whole, the manifest when all
    of them are.

    Args:
        checkpoint: a Hugging Face folder with safetensors, or its address (``s3://…``, with the extra ``remote``): then
            it is fetched first.
        out: the folder to write.
        registry: whose book decides.
        others: copy the tensors that are no experts', too.
        keep: which of the experts' tensors are kept as they are for ``restore_checkpoint``, where their laid-out bytes
            do not say what they were: ``scales`` (small), ``all`` (weights too) or ``none``.
        workers: threads; as many as there are cores if None.
        executor: writes the files elsewhere than on threads of this process.
        allow: codes of error findings with which a decision is applied all the same.
        listener: called with every event of the run.
        fields: of the query: ``arch`` at least; ``tp``, ``ep``, ``engine``, ``activation_dtype``, …

    Raises:
        CheckpointError: the checkpoint is damaged, or changes meanwhile.
        QueryError: a field is missing or wrong.
        NoRecipeError: no rule answers.
        LayoutError: a tensor is not what the decision takes, or the decision carries an error.
        LaidOutError: a file cannot be written, or the folder holds something else.
    """
    fetched = None
    if isinstance(checkpoint, str) and is_remote(checkpoint):
        fetched = fetch_for_run(checkpoint, Path(out), listener, reuse=True)
        checkpoint = fetched.folder
    else:
        check_apart(checkpoint.folder if isinstance(checkpoint, Checkpoint) else Path(checkpoint), Path(out))
    job = WholeCheckpoint.of(checkpoint, out, registry, allow, fields, others=others, keep=keep)
    if fetched is not None:
        job = replace(job, identities=fetched.identities, unfetched=fetched.unfetched)
    with exclusive_folder(job.out, job.expected()):
        manifest = job.write(executor or ThreadExecutor(workers or core_count()), listener)
    shutil.rmtree(job.out / WORK, ignore_errors=True)
    return manifest


@dataclass(frozen=True)
class WholeCheckpoint:
    """Everything that laying out one checkpoint takes.

    Attributes:
        plan: of the layers.
        finished: of the folder to write.
        shards: the checkpoint's files.
        copies: files of tensors that are no experts'.
        keep: which of the experts' tensors are kept as they are.
        others: whether other tensors are copied.
        identities: what another file system says of the shards' bytes, by name.
        unfetched: shards that are there by their headers alone.
    """

    plan: RunPlan
    finished: FinishedManifest
    shards: MappedShards
    copies: tuple[OtherFile, ...]
    keep: Keep
    others: bool
    identities: Mapping[str, Identity] = field(default_factory=dict)
    unfetched: UnfetchedShards | None = None

    @staticmethod
    def of(
        checkpoint: Checkpoint | Path | str,
        out: Path | str,
        registry: Registry | None,
        allow: Collection[FindingCode],
        fields: Mapping[str, Any],
        *,
        others: bool,
        keep: Keep,
    ) -> WholeCheckpoint:
        """Decide, plan and check the folder; nothing is written."""
        out = Path(out)
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = Checkpoint.open(checkpoint, registry)
        if out.resolve() == checkpoint.folder.resolve():
            raise LaidOutError(f"{out}: is the checkpoint itself; choose another folder")
        folder = checkpoint.folder
        check_names(out, set(checkpoint.shards.values()), small_files(folder), folder)
        plan, finished = RunPlan.of(checkpoint, fields, allow), FinishedManifest(out)
        check_output(finished, plan, small_files(folder))
        shards = MappedShards()
        copies = tuple(_other_files(plan, shards)) if others else ()
        return WholeCheckpoint(plan, finished, shards, copies, keep, others)

    @property
    def out(self) -> Path:
        """The folder to write."""
        return self.finished.out

    @property
    def units(self) -> list[Unit]:
        """Everything to write, but for what must be kept."""
        return [*self.plan.units(), *self.copies]

    def expected(self) -> set[str]:
        """Return the files that belong into the folder."""
        return {unit.file for unit in self.units} | {path.name for path in self.out.glob(f"{_KEPT}-*.safetensors")}

    def write(self, executor: Executor, listener: Listener | None) -> Manifest:
        """Write what is not there yet, and then the manifest."""
        checkpoint, plan, out = self.plan.checkpoint, self.plan, self.out
        context, digests = self._begin(self.units, listener, JOURNAL)
        paths = sorted(set(checkpoint.shards.values()))
        records = self._run(context, digests, executor, self.units, paths)
        kept = _kept_files(plan, list(records.values()), self.shards, self.keep)
        records |= self._run(context, digests, executor, kept)
        digests.check_unchanged(paths)
        copied = copy_small_files(checkpoint.folder, out)
        copied += copy_headers(checkpoint.folder, out, [self.shards.header(path) for path in paths])
        sources = identified(digests.records(), self.identities)
        states = {path.name: state for path in paths if (state := digests.state(path)) is not None}
        manifest = finish(context, records, sources, copied, self.others)
        for path in out.glob(f"{_KEPT}-*.safetensors"):  # when no manifest names them any more
            if path.name not in records:
                path.unlink()
        remember_states(out / MANIFEST, states)
        context.progress.tell("finished")
        return manifest

    def write_units(self, units: list[Unit], executor: Executor, listener: Listener | None, journal: str) -> None:
        """Write some units, and no manifest."""
        context, digests = self._begin(units, listener, journal)
        executor.run(context, units)
        digests.check_unchanged({path for unit in units for path in sources_of(unit, self.plan)})
        synchronise_folder(self.out)
        context.progress.tell("finished")

    def _run(
        self,
        context: RunContext,
        digests: Sources,
        executor: Executor,
        units: Sequence[Unit],
        unread: Collection[Path] = (),
    ) -> dict[str, FileRecord]:
        """Write units; of shards that were not fetched only what is needed comes."""
        if self.unfetched is None:
            return executor.run(context, units, unread)
        records = self.unfetched.finished(context, units)
        rest = [unit for unit in units if unit.file not in records]
        self.unfetched.prepare(context, digests, rest, self.shards)
        paths = [path for path in unread if path.name not in self.unfetched.names]
        return records | (executor.run(context, rest, paths) if rest or paths else {})

    def _begin(self, units: list[Unit], listener: Listener | None, journal: str) -> tuple[RunContext, Sources]:
        """Check the checkpoint and the room, and tell the listener of the start."""
        recorded = self.unfetched.digests() if self.unfetched is not None else {}
        fingerprint = fingerprint_of(self.plan, self.others)
        digests = Sources(self.plan.checkpoint, self.out, fingerprint, journal, recorded, self.finished)
        digests.check_index(self.plan.checkpoint, self.shards)
        check_room(self.out, sum(unit.nbytes for unit in units if not (self.out / unit.file).exists()))
        progress = Progress(sum(unit.nbytes for unit in units), listener)
        progress.tell("started")
        layers = CheckpointLayers(self.shards, self.plan.checkpoint.shards.values())
        return RunContext(self.plan, self.out, digests, layers, progress), digests


def core_count() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def fingerprint_of(plan: RunPlan, others: bool) -> dict[str, Any]:
    """Return what a run does, by words that messages can name.

    The checkpoint's bytes are not among them.
    """
    query = plan.plans[0].query
    return {
        "arch": query.arch,
        "engine": str(query.engine) if query.engine else None,
        "tp": query.tp,
        "ep": query.ep,
        "recipes": sorted({one.recipe for one in plan.plans}),
        "decisions": {str(layer): one.decision_digest for layer, (one, _) in plan.layers.items()},
        "other tensors": others,
    }


def finish(
    context: RunContext,
    records: Mapping[str, FileRecord],
    sources: tuple[SourceRecord, ...],
    copied: tuple[CopiedRecord, ...],
    complete: bool,
) -> Manifest:
    """Write each rank's index, and the manifest behind everything else."""
    plan, out = context.plan, context.out
    ranks = tuple(records[unit.file] for unit in plan.units())
    rest = [one for _, one in sorted(records.items()) if one.layer is None]
    others = tuple(one for one in rest if not one.file.startswith(f"{_KEPT}-"))
    kept = tuple(one for one in rest if one.file.startswith(f"{_KEPT}-"))
    (tp, ep), query = plan.ranks, plan.plans[0].query
    for ep_rank in range(ep):
        for tp_rank in range(tp):
            own = [one for one in ranks if (one.tp_rank, one.ep_rank) == (tp_rank, ep_rank)]
            write_rank_index(out, (tp_rank, ep_rank), own, others, context.states)
    manifest = Manifest(
        format=FORMAT,
        key=manifest_key((*ranks, *others, *kept), sources),
        tp=tp,
        ep=ep,
        registry_digest=plan.checkpoint.registry.digest,
        aiter=query.aiter,
        aiter_features=query.aiter_features,
        plans=plan.plans,
        sources=sources,
        ranks=ranks,
        others=others,
        kept=kept,
        copied=copied,
        complete=complete,
        checksum=BLANK,
    )
    manifest, data = manifest.sealed()
    synchronise_folder(out)
    write_whole(out / MANIFEST, data)
    synchronise_folder(out)
    return manifest


def _other_files(plan: RunPlan, shards: MappedShards) -> list[OtherFile]:
    """Plan the copies of tensors that no unit reads."""
    read = {name for layer in plan.layers for name in plan.names_of(layer)}
    found = [
        (shards.header(path), [name for name in shards.header(path).entries if name not in read])
        for path in sorted(set(plan.checkpoint.shards.values()))
    ]
    return _files_of("others", [(shard, names) for shard, names in found if names])


def _kept_files(plan: RunPlan, records: list[FileRecord], shards: MappedShards, keep: Keep) -> list[OtherFile]:
    """Plan the copies of experts' tensors that laid-out bytes do not restore."""
    names: set[str] = set()
    for record in records:
        if record.layer is None or keep == "none":
            continue
        entries = plan.layers[record.layer][0].entries
        for tensor in record.tensors:
            role = tensor.role
            if role is None or not (tensor.lost or why_joined(role, entries[role])):
                continue
            if keep == "all" or not role.endswith("_weight"):
                names.update(plan.names_of_role(record.layer, role))
    paths = sorted({plan.checkpoint.shards[name] for name in names})
    return _files_of(_KEPT, [(shards.header(path), [name for name in names]) for path in paths])


def _files_of(kind: str, chosen: list[tuple[ShardFile, list[str]]]) -> list[OtherFile]:
    return [
        OtherFile.of(kind, number, len(chosen), shard, set(names))
        for number, (shard, names) in enumerate(chosen, start=1)
    ]

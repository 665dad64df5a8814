"""Lay a whole checkpoint out ahead."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from preshuffle.layouts.checkpoint import Checkpoint, Identity, MappedShards, is_remote
from preshuffle.layouts.laid_out.copied_tensors import KEPT, Keep, kept_files, other_files
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.finished_manifest import FinishedManifest
from preshuffle.layouts.laid_out.files.manifest import (
    FORMAT,
    MANIFEST,
    CopiedRecord,
    FileRecord,
    Manifest,
    SourceRecord,
    by_rank,
    manifest_key,
)
from preshuffle.layouts.laid_out.files.progress import Listener, Progress
from preshuffle.layouts.laid_out.files.rank_states import write_rank_index
from preshuffle.layouts.laid_out.files.seal import BLANK
from preshuffle.layouts.laid_out.files.tensor_writer import synchronise_folder, write_changed
from preshuffle.layouts.laid_out.remote_source import check_small_files, fetch_for_run, identified
from preshuffle.layouts.laid_out.runs.executor import Executor, RunContext
from preshuffle.layouts.laid_out.runs.other_tensors import OtherFile, copy_headers, copy_small_files, small_files
from preshuffle.layouts.laid_out.runs.output_folder import (
    check_apart,
    check_expected,
    check_names,
    check_output,
    check_room,
    exclusive_folder,
    finishing,
)
from preshuffle.layouts.laid_out.runs.run_plan import RunPlan
from preshuffle.layouts.laid_out.runs.sources import JOURNAL, Sources
from preshuffle.layouts.laid_out.runs.threads import ThreadExecutor, core_count
from preshuffle.layouts.laid_out.runs.unit_files import Unit, sources_of
from preshuffle.layouts.laid_out.unfetched import UnfetchedShards
from preshuffle.layouts.stamps import remember_states
from preshuffle.registry import Registry
from preshuffle.registry.values.finding import FindingCode


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
    executor = executor or ThreadExecutor(workers or core_count())
    decided = (registry, allow, fields)
    if isinstance(checkpoint, str) and is_remote(checkpoint):
        check_small_files(checkpoint, Path(out))
        with exclusive_folder(Path(out)):
            job = WholeCheckpoint.fetch(checkpoint, out, *decided, listener, others=others, keep=keep)
            return job.write(executor, listener)
    check_apart(checkpoint.folder if isinstance(checkpoint, Checkpoint) else Path(checkpoint), Path(out))
    job = WholeCheckpoint.of(checkpoint, out, *decided, others=others, keep=keep)
    with exclusive_folder(job.out):
        return job.write(executor, listener)


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
        copies = tuple(other_files(plan, shards)) if others else ()
        job = WholeCheckpoint(plan, finished, shards, copies, keep, others)
        check_expected(out, job.expected())
        return job

    @staticmethod
    def fetch(
        address: str,
        out: Path | str,
        registry: Registry | None,
        allow: Collection[FindingCode],
        fields: Mapping[str, Any],
        listener: Listener | None,
        *,
        others: bool,
        keep: Keep,
        wait: bool = False,
    ) -> WholeCheckpoint:
        """Fetch the checkpoint of an address first; the folder is in use."""
        fetched = fetch_for_run(address, Path(out), listener, wait=wait)
        job = WholeCheckpoint.of(fetched.folder, out, registry, allow, fields, others=others, keep=keep)
        return replace(job, identities=fetched.identities, unfetched=fetched.unfetched)

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
        return {unit.file for unit in self.units} | {path.name for path in self.out.glob(f"{KEPT}-*.safetensors")}

    def write(self, executor: Executor, listener: Listener | None) -> Manifest:
        """Write missing files, and then the manifest; nobody else may write."""
        checkpoint, plan, out = self.plan.checkpoint, self.plan, self.out
        context, digests = self._begin(self.units, listener, JOURNAL)
        paths = sorted(set(checkpoint.shards.values()))
        records = self._run(context, digests, executor, self.units, paths)
        kept = kept_files(plan, list(records.values()), self.shards, self.keep)
        records |= self._run(context, digests, executor, kept)
        digests.check_unchanged(self._read(paths))
        copied = copy_small_files(checkpoint.folder, out)
        copied += copy_headers(checkpoint.folder, out, [self.shards.header(path) for path in paths])
        sources = identified(digests.records(), self.identities)
        states = {path.name: state for path in self._read(paths) if (state := digests.state(path)) is not None}
        manifest = finish(context, records, sources, copied, self.others)
        for path in out.glob(f"{KEPT}-*.safetensors"):  # when no manifest names them any more
            if path.name not in records:
                path.unlink()
        remember_states(out / MANIFEST, states)
        context.progress.tell("finished")
        return manifest

    def write_units(self, units: list[Unit], executor: Executor, listener: Listener | None, journal: str) -> None:
        """Write some units, and no manifest; others may write other ones."""
        context, digests = self._begin(units, listener, journal)
        self._run(context, digests, executor, units, removing=finishing(self.out))
        digests.check_unchanged(self._read({path for unit in units for path in sources_of(unit, self.plan)}))
        synchronise_folder(self.out)
        context.progress.tell("finished")

    def missing(self) -> list[Unit]:
        """Return units whose files are missing, or of shards replaced since."""
        there = set(os.listdir(self.out))
        missing = [unit for unit in self.units if unit.file not in there]
        if missing or self.unfetched is None:
            return missing
        return self.unfetched.outdated(self.plan, self._digests(JOURNAL), self.units)

    def _run(
        self,
        context: RunContext,
        digests: Sources,
        executor: Executor,
        units: Sequence[Unit],
        unread: Collection[Path] = (),
        removing: AbstractContextManager[None] | None = None,
    ) -> dict[str, FileRecord]:
        """Write units, and fetch the shards that they need.

        Outdated files are removed within ``removing``.
        """
        if self.unfetched is None:
            return executor.run(context, units, unread)
        records = self.unfetched.finished(context, units)
        rest = [unit for unit in units if unit.file not in records]
        self.unfetched.fetch_for(context.plan, digests, rest, self.shards)
        with removing or nullcontext():
            self.unfetched.remove_outdated(context.plan, digests, rest)
        paths = self._read(unread)
        return records | (executor.run(context, rest, paths) if rest or paths else {})

    def _read(self, paths: Iterable[Path]) -> list[Path]:
        """Return shards without those that were not fetched."""
        return [path for path in paths if self.unfetched is None or path.name not in self.unfetched.names]

    def _digests(self, journal: str) -> Sources:
        recorded = self.unfetched.digests() if self.unfetched is not None else {}
        fingerprint = fingerprint_of(self.plan, self.others)
        return Sources(self.plan.checkpoint, self.out, fingerprint, journal, recorded, self.finished)

    def _begin(self, units: list[Unit], listener: Listener | None, journal: str) -> tuple[RunContext, Sources]:
        """Check folder, checkpoint and room, and tell the listener of the start."""
        check_output(self.finished, self.plan, small_files(self.plan.checkpoint.folder))  # as they are now
        check_expected(self.out, self.expected())
        digests = self._digests(journal)
        digests.check_index(self.plan.checkpoint, self.shards)
        check_room(self.out, sum(unit.nbytes for unit in units if not (self.out / unit.file).exists()))
        progress = Progress(sum(unit.nbytes for unit in units), listener)
        progress.tell("started")
        layers = CheckpointLayers(self.shards, self.plan.checkpoint.shards.values())
        return RunContext(self.plan, self.out, digests, layers, progress), digests


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
    others = tuple(one for one in rest if not one.file.startswith(f"{KEPT}-"))
    kept = tuple(one for one in rest if one.file.startswith(f"{KEPT}-"))
    (tp, ep), query = plan.ranks, plan.plans[0].query
    for rank, own in by_rank(ranks).items():
        write_rank_index(out, rank, own, others, context.states)
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
    write_changed(out / MANIFEST, data)
    synchronise_folder(out)
    return manifest

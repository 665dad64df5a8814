"""Conversion of a laid-out checkpoint, without its source."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, Final

from preshuffle.layouts.checkpoint import Checkpoint, MappedShards, ShardFile
from preshuffle.layouts.laid_out.files.checked_file import check_copied, check_header
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.finished_manifest import FinishedManifest
from preshuffle.layouts.laid_out.files.manifest import WORK, FileRecord, LayerPlan, Manifest, SourceRecord, TensorRecord
from preshuffle.layouts.laid_out.files.progress import Listener, Progress
from preshuffle.layouts.laid_out.files.shard_targets import ShardTargets
from preshuffle.layouts.laid_out.files.tensor_writer import copy_whole, write_whole, writing
from preshuffle.layouts.laid_out.plain_layer import restore_rank_layer
from preshuffle.layouts.laid_out.restore import copy_back, source_headers
from preshuffle.layouts.laid_out.runs.executor import Executor, RunContext
from preshuffle.layouts.laid_out.runs.output_folder import (
    check_apart,
    check_expected,
    check_output,
    check_room,
    exclusive_folder,
)
from preshuffle.layouts.laid_out.runs.run_plan import RunPlan, why_joined
from preshuffle.layouts.laid_out.runs.threads import ThreadExecutor, core_count
from preshuffle.layouts.laid_out.whole_checkpoint import finish
from preshuffle.layouts.stamps import Loss, digest_file
from preshuffle.registry import Decision, Query, Registry
from preshuffle.registry.hf import language_model, layers_of, model_type_of, read_config
from preshuffle.registry.values.finding import FindingCode

_NAMED: Final = 8
_LAYERS: Final = "layers"
_REPEATABLE: Final = ("fnuz", "cast")
"""Steps that lose something, and give the same again where they are done again."""


def convert_laid_out(
    out: Path | str,
    new: Path | str,
    *,
    registry: Registry | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    allow: Collection[FindingCode] = (),
    listener: Listener | None = None,
    **fields: Any,
) -> Manifest:
    """Convert a laid-out checkpoint for other ranks, GPUs or engines.

    The result is what ``lay_out_checkpoint`` makes of the source, which is not needed: each layer is taken back into
    temporary files, and laid out again. Killed, the same call resumes.

    Args:
        out: the laid-out checkpoint.
        new: the folder to write.
        registry: whose book decides.
        workers: threads; as many as there are cores if None.
        executor: writes the files elsewhere than on threads of this process.
        allow: as for ``lay_out_checkpoint``.
        listener: called with every event.
        fields: of the query that change; the others are those by which ``out`` was made.

    Raises:
        LaidOutError: ``out`` is damaged, or laying out lost what the new decision needs: names the tensors.
        QueryError: a field is wrong.
        NoRecipeError: no rule answers.
    """
    out, new = Path(out), Path(new)
    if out.resolve() == new.resolve():
        raise LaidOutError(f"{new}: is the laid-out checkpoint itself; choose another folder")
    check_apart(out, new)
    manifest = Manifest.read(out)
    for copied in manifest.copied:
        check_copied(out, copied)
    registry = registry or Registry.default()
    headers = source_headers(out, manifest)
    checkpoint = _as_checkpoint(out, new, manifest, headers, registry)
    plan = RunPlan.of(checkpoint, {**given_fields(checkpoint, manifest), **fields}, allow)
    check_convertible(out, manifest, plan)
    plan = replace(plan, inherited=inherited_losses(manifest))
    units = list(plan.units())
    carried = (*manifest.others, *manifest.kept)
    check_output(FinishedManifest(new), plan, [out / one.file for one in manifest.copied if "/" not in one.file])
    expected = {unit.file for unit in units} | {one.file for one in carried}
    check_expected(new, expected)
    with exclusive_folder(new):
        check_expected(new, expected)
        digests = RecordedDigests(manifest.sources)
        size = sum(unit.nbytes for unit in units)
        check_room(new, sum(unit.nbytes for unit in units if not (new / unit.file).exists()))
        progress = Progress(size, listener)
        progress.tell("started")
        names = {layer: frozenset(plan.names_of(layer)) for layer in plan.layers}
        layers = RestoredLayers(LayerRestorer(out.absolute(), manifest, names, headers), new / WORK / _LAYERS)
        context = RunContext(plan, new, digests, layers, progress)
        records = (executor or ThreadExecutor(workers or core_count())).run(context, units)
        for one in carried:
            _carry(out, new, one)
            records[one.file] = one
        for copied in manifest.copied:
            with writing(new / copied.file):
                (new / copied.file).parent.mkdir(exist_ok=True)
            write_whole(new / copied.file, (out / copied.file).read_bytes())
        made = finish(context, records, manifest.sources, manifest.copied, manifest.complete)
        progress.tell("finished")
    return made


def given_fields(checkpoint: Checkpoint, manifest: Manifest) -> dict[str, Any]:
    """Return the query fields that a checkpoint's configuration does not say.

    Those by which it was laid out.
    """
    plan = manifest.plans[0]
    query = plan.query
    alone = {"arch": query.arch, **({"engine": query.engine} if query.engine else {})}
    base = checkpoint.registry.query_from_hf_config(checkpoint.config, layer=plan.layers[0], **alone)
    changed = (name for name in Query.model_fields if getattr(base, name) != getattr(query, name))
    return {**alone, **{name: getattr(query, name) for name in changed}}


def check_convertible(out: Path, manifest: Manifest, plan: RunPlan) -> None:
    """Check that laid-out bytes say all that new decisions need.

    Raises:
        LaidOutError: names the tensors that must be taken from the checkpoint.
    """
    kept = manifest.kept_names()
    found: dict[str, str] = {}
    for record in manifest.ranks:
        if record.layer is None:
            continue
        old, (_, decision) = manifest.plan_of(record.layer), plan.layers[record.layer]
        for tensor in record.tensors:
            why = _why_not(old, decision, tensor.role, tensor.lost)
            if why is None or tensor.role is None:
                continue
            if not {*old.flat_names(tensor.role, record.layer)} <= kept:
                found[tensor.name] = why
    if found:
        named = ", ".join(f"{name} ({why})" for name, why in list(found.items())[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise LaidOutError(
            f"{out}: these cannot be converted, since laying out lost what they were: {named}{more}. Lay the "
            "checkpoint out anew; with --keep all a later conversion needs it no more"
        )


def inherited_losses(manifest: Manifest) -> dict[tuple[int, str], tuple[Loss, ...]]:
    """Return what was lost of each layer's roles, and not kept."""
    kept = manifest.kept_names()
    found: dict[tuple[int, str], tuple[Loss, ...]] = {}
    for record in manifest.ranks:
        for tensor in record.tensors:
            if record.layer is None or tensor.role is None or not tensor.lost:
                continue
            if not {*manifest.plan_of(record.layer).flat_names(tensor.role, record.layer)} <= kept:
                before = found.get((record.layer, tensor.role), ())
                found[record.layer, tensor.role] = tuple(dict.fromkeys((*before, *tensor.lost)))
    return found


def _why_not(old: LayerPlan, decision: Decision, role: Any, lost: tuple[str, ...]) -> str | None:
    if role is None or role not in old.entries:
        return None
    decided = decision.tensors.get(role)
    again = decided.steps if decided else ()
    steps = [step for step in lost if not (step in _REPEATABLE and (step == "cast" or step in again))]
    if steps:
        return ", ".join(steps)
    return why_joined(role, old.entries[role]) if decided is not None else None


class RecordedDigests:
    """Digests of shards as a manifest records them."""

    def __init__(self, records: tuple[SourceRecord, ...]) -> None:
        """Take a manifest's records."""
        self._records = records
        self._digests = {one.name: one.digest for one in records}

    def digest(self, path: Path) -> str:
        """Return the digest of a shard."""
        return self._digests[path.name]

    def known(self, path: Path) -> str:
        """Return the digest of a shard."""
        return self._digests[path.name]

    def state(self, path: Path) -> None:
        """Return nothing: there are no shards that could change."""

    def record(self, path: Path, digest: str) -> None:
        """Do nothing: all digests are recorded."""

    def check_unchanged(self, paths: Iterable[Path]) -> None:
        """Do nothing: there are no shards that could change."""

    def records(self) -> tuple[SourceRecord, ...]:
        """Return every shard."""
        return self._records


@dataclass(frozen=True, slots=True)
class LayerRestorer:
    """Takes layers back from laid-out files.

    Attributes:
        out: the laid-out checkpoint.
        manifest: its manifest.
        names: by layer, the checkpoint's tensors that are wanted.
        headers: of the checkpoint's shards.
    """

    out: Path
    manifest: Manifest
    names: Mapping[int, frozenset[str]]
    headers: list[ShardFile]

    def files(self) -> list[Path]:
        """Return the laid-out files."""
        return [self.out / record.file for record in (*self.manifest.ranks, *self.manifest.kept)]

    def make(self, layer: int, folder: Path) -> None:
        """Restore a layer's shards into a new folder; see ``LayerMaker``."""
        with writing(folder):
            folder.mkdir(parents=True)
        names = self.names[layer]
        targets = ShardTargets(folder, [one for one in self.headers if names & set(one.entries)], names)
        silent, shards = Progress(0, None), MappedShards()
        for record in self.manifest.ranks:
            if record.layer == layer:
                _check_digests(self.out, record, record.tensors)
                restore_rank_layer(self.out, self.manifest, record, shards, targets, silent)
        for record in self.manifest.kept:
            some = tuple(tensor for tensor in record.tensors if tensor.name in names)
            if some:  # else each layer would read every header
                _check_digests(self.out, record, some)
                copy_back(self.out, record, some, shards, targets, silent)
        targets.publish()


class RestoredLayers:
    """Layers taken back from laid-out files while units need them."""

    def __init__(self, maker: LayerRestorer, folder: Path) -> None:
        """Restore nothing yet.

        Args:
            maker: restores a layer.
            folder: for the layers' files.
        """
        self.maker = maker
        self._folder = folder
        self._shards = MappedShards()
        self._locks = {layer: Lock() for layer in maker.names}
        self._done: set[int] = set()
        shutil.rmtree(folder, ignore_errors=True)

    def files(self) -> list[Path]:
        """Return the laid-out files."""
        return self.maker.files()

    def shards(self) -> MappedShards:
        """Return the restored files."""
        return self._shards

    def begin(self, layer: int) -> None:
        """Restore a layer, unless another unit did."""
        with self._locks[layer]:
            if layer not in self._done:
                self.maker.make(layer, self._folder_of(layer))
                self._done.add(layer)

    def end(self, layer: int) -> None:
        """Remove a restored layer."""
        for path in self._folder_of(layer).glob("*"):
            self._shards.forget(path)
        shutil.rmtree(self._folder_of(layer), ignore_errors=True)

    def _folder_of(self, layer: int) -> Path:
        return self._folder / str(layer)


def _as_checkpoint(
    out: Path, new: Path, manifest: Manifest, headers: list[ShardFile], registry: Registry
) -> Checkpoint:
    """Return a checkpoint whose layers will be found in temporary files."""
    config = read_config(out)
    entry = model_type_of(config, registry.book)
    experts = {layer: plan.entries for plan in manifest.plans for layer in plan.layers}
    holders = {name: header.path.name for header in headers for name in header.entries}
    shards = {name: path for layer in sorted(experts) for name, path in _places(new, manifest, layer, holders)}
    layers = layers_of(language_model(config, entry), entry)
    return Checkpoint(out, config, shards, layers, manifest.plans[0].routed, dict(sorted(experts.items())), registry)


def _places(new: Path, manifest: Manifest, layer: int, holders: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    plan = manifest.plan_of(layer)
    folder = new / WORK / _LAYERS / str(layer)
    for role, entry in plan.entries.items():
        names = {*plan.flat_names(role, layer)}
        names |= {name.format(layer=layer) for name in entry.shared}
        yield from ((name, folder / holders[name]) for name in names if name in holders)


def _check_digests(out: Path, record: FileRecord, tensors: Iterable[TensorRecord]) -> None:
    """Compare tensors with their checksums before they are moved.

    What is written gets checksums of its own, which would hide damage.

    Raises:
        LaidOutError: a tensor is damaged.
    """
    path = out / record.file
    check_header(path, record)
    for tensor in tensors:
        if digest_file(path, (tensor.begin, tensor.begin + tensor.nbytes)) != tensor.digest:
            raise LaidOutError(f"{path}: {tensor.name} is damaged: its bytes differ from its checksum")


def _carry(out: Path, new: Path, record: FileRecord) -> None:
    """Carry a file over that stays as it is, without a copy where that is possible."""
    check_header(out / record.file, record)
    target = new / record.file
    with writing(target):
        target.unlink(missing_ok=True)
        try:
            os.link(out / record.file, target)
        except OSError:
            copy_whole(out / record.file, target)

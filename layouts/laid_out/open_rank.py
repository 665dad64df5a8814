"""Laid-out tensors of one rank, mapped for an engine."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import torch

from preshuffle.layouts.checkpoint import Checkpoint, is_remote
from preshuffle.layouts.laid_out.device_copy import DeviceCopier
from preshuffle.layouts.laid_out.files.checked_file import check_copied
from preshuffle.layouts.laid_out.files.errors import LaidOutError, StaleError
from preshuffle.layouts.laid_out.files.manifest import MANIFEST, FileRecord, Manifest, naming_of
from preshuffle.layouts.laid_out.files.rank_file import RankFile, dtype_of
from preshuffle.layouts.laid_out.files.rank_states import states_as_written
from preshuffle.layouts.laid_out.remote_source import changed_sources
from preshuffle.layouts.laid_out.runs.parameter_names import parameter_names, parameter_prefix
from preshuffle.layouts.laid_out.runs.run_plan import RunPlan
from preshuffle.layouts.loader import AITER_TAG, apply
from preshuffle.layouts.stamps import digest_of, put_stamps, sample_memory
from preshuffle.registry import Decision, NoRecipeError, Query, Registry
from preshuffle.registry.base.collection import age_objects, collection_paused
from preshuffle.registry.hf import read_config

_CONFIG: Final = "config.json"
"""The configuration, from which a query is made."""
Rank = int | tuple[int, int]
for _model in (Manifest, Query):  # here, beside torch's import: else the first that opens a folder waits for it
    _model.model_rebuild()


class LaidOutFallbackWarning(UserWarning):
    """A laid-out checkpoint is of no use; the checkpoint is read instead."""


@dataclass(frozen=True)
class LaidOutRank:
    """One rank's experts, layer by layer.

    Attributes:
        layers: numbers of the layers that have experts.
        from_checkpoint: whether each layer is read from the checkpoint and laid out when it is asked for.
        reason: why the laid-out checkpoint is of no use, if so.
    """

    tp_rank: int
    ep_rank: int
    layers: tuple[int, ...]
    from_checkpoint: bool
    reason: str | None
    _queries: Mapping[int, Query] = field(repr=False)
    _registry: Registry = field(repr=False)
    _reader: _MappedReader | _CheckpointReader = field(repr=False)

    def layer(self, layer: int) -> dict[str, torch.Tensor]:
        """Return a layer's tensors by the names of the engine's parameters, stamped.

        On a CPU they are views of the mapping, private to this process: nothing was copied.

        Raises:
            LaidOutError: the layer has no experts, or a sample of a tensor's bytes is not what was written.
        """
        self._check(layer)
        return self._reader.layer(layer)

    def decision(self, layer: int) -> Decision:
        """Return the decision by which a layer is laid out.

        Its call goes with the bytes.
        """
        self._check(layer)
        return self._registry.resolve(self._queries[layer], kernels=self.from_checkpoint)

    def _check(self, layer: int) -> None:
        if layer not in self._queries:
            raise LaidOutError(f"layer {layer} has no experts; valid: {', '.join(map(str, self.layers))}")

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield names and tensors of all layers, as engines' loaders take them.

        While one is taken, the system reads the next one from the disk.
        """
        for layer, following in zip_longest(self.layers, self.layers[1:]):
            tensors = self.layer(layer)
            if following is not None:
                self._reader.read_ahead(following)
            yield from tensors.items()


def open_laid_out(
    path: Path | str,
    rank: Rank,
    *,
    checkpoint: Path | str | None = None,
    fallback: bool = False,
    device: torch.device | str = "cpu",
    check_samples: bool = True,
    registry: Registry | None = None,
    **fields: Any,
) -> LaidOutRank:
    """Open one rank of a laid-out checkpoint.

    Its key is compared with what is needed: the book must still decide the same, and so it must for ``fields``.

    Args:
        path: the folder.
        rank: ``(tp_rank, ep_rank)``, or a number that counts tensor-parallel ranks first.
        checkpoint: the checkpoint or its address; its shards' sizes, and hashes or ETags or else headers, are compared
            with those that were laid out. No tensor is read.
        fallback: where the folder is of no use, warn and read the checkpoint, if it is a folder.
        device: where tensors are wanted; to a GPU they are copied through pinned memory.
        check_samples: compare a sample of each tensor's bytes with its checksum, unless size, times and inode say that
            the files are as the run left them.
        registry: whose book must decide the same.
        fields: of the query that the engine has: ``arch``, ``engine``, ``tp``, ``ep``, ``activation_dtype``, ….

    Raises:
        StaleError: the key does not match; says in what.
        LaidOutError: the folder is unfinished or damaged, or there is no such rank.
    """
    try:
        return _open(Path(path), rank, checkpoint, torch.device(device), check_samples, registry, fields)
    except LaidOutError as error:
        if not fallback or checkpoint is None or (isinstance(checkpoint, str) and is_remote(checkpoint)):
            raise
        warnings.warn(f"{error}; the checkpoint is read instead", LaidOutFallbackWarning, stacklevel=2)
        return _from_checkpoint(Path(checkpoint), rank, torch.device(device), registry, fields, str(error))


@collection_paused()
def _open(
    path: Path,
    rank: Rank,
    checkpoint: Path | str | None,
    device: torch.device,
    check_samples: bool,
    registry: Registry | None,
    fields: Mapping[str, Any],
) -> LaidOutRank:
    registry = registry or Registry.default()
    manifest = Manifest.read(path)
    tp_rank, ep_rank = _ranks(rank, manifest.tp, manifest.ep)
    queries = _queries(path, manifest, registry, fields)
    if checkpoint is not None:
        for _, _, text in changed_sources(path, manifest, checkpoint):
            raise StaleError(f"{path}: made of another checkpoint: {text}")
    reader = _MappedReader(path, manifest, (tp_rank, ep_rank), device, check_samples)
    age_objects()
    return LaidOutRank(tp_rank, ep_rank, tuple(sorted(queries)), False, None, queries, registry, reader)


def _queries(path: Path, manifest: Manifest, registry: Registry, fields: Mapping[str, Any]) -> dict[int, Query]:
    """Return each layer's query, whose decision must be that of the files.

    Only bytes and call are decided: what is wrong with a deployment is not asked here.

    Raises:
        StaleError: the book decides otherwise now, or for what is needed.
    """
    found: dict[int, Query] = {}
    config = _config(path, manifest) if fields else None
    for plan in manifest.plans:
        query = plan.query
        if config is not None:
            query = registry.query_from_hf_config(config, layer=plan.layers[0], **{"arch": query.arch, **fields})
        try:
            decision = registry.resolve_layout(query)
        except NoRecipeError as error:
            first = str(error).splitlines()[0]
            raise StaleError(
                f"{path}: laid out by recipe {plan.recipe}; for what is needed there is none: {first}"
            ) from None
        cut = registry.loader_cut(query)
        cut.shards(query)
        names = parameter_names(registry.book, query, decision.recipe)
        naming = naming_of(cut.shard, cut.pad, parameter_prefix(plan.entries), names)
        if (query.tp, query.ep) != (manifest.tp, manifest.ep):
            raise StaleError(f"{path}: laid out for tp={manifest.tp}, ep={manifest.ep}; needed: {query.tp}, {query.ep}")
        if decision.decision_digest != plan.decision_digest:
            what = f"recipe {plan.recipe}, {plan.query.arch}, engine {plan.query.engine or 'none'}"
            need = f"recipe {decision.recipe}, {query.arch}, engine {query.engine or 'none'}"
            raise StaleError(f"{path}: laid out by {what} ({plan.decision_digest}); needed: {need}: apply again")
        if naming != plan.naming():
            raise StaleError(f"{path}: cut or named otherwise than {query.engine or 'the book'} needs it: apply again")
        found |= dict.fromkeys(plan.layers, query)
    return found


def _config(path: Path, manifest: Manifest) -> Mapping[str, Any]:
    """Return the copied configuration, which must be the checkpoint's."""
    for copied in manifest.copied:
        if copied.file == _CONFIG:
            check_copied(path, copied)
    return read_config(path)


def _ranks(rank: Rank, tp: int, ep: int) -> tuple[int, int]:
    tp_rank, ep_rank = (rank % tp, rank // tp) if isinstance(rank, int) else rank
    if not (0 <= tp_rank < tp and 0 <= ep_rank < ep) or (isinstance(rank, int) and rank < 0):
        raise LaidOutError(f"rank {rank} is not one of tp={tp}, ep={ep}")
    return tp_rank, ep_rank


class _MappedReader:
    """Reads layers from laid-out files."""

    def __init__(
        self, folder: Path, manifest: Manifest, rank: tuple[int, int], device: torch.device, check_samples: bool
    ) -> None:
        records = {one.layer: one for one in manifest.rank(*rank) if one.layer is not None}
        if set(records) != {layer for plan in manifest.plans for layer in plan.layers}:
            raise LaidOutError(f"{folder / MANIFEST}: its plans are of other layers than its files: it is damaged")
        written = states_as_written(folder, rank, records.values())
        self._files = {layer: RankFile(folder, one, manifest, written.get(one.file)) for layer, one in records.items()}
        self._check = check_samples
        self._device = device
        self._copier = DeviceCopier(device) if device.type != "cpu" else None

    def layer(self, layer: int) -> dict[str, torch.Tensor]:
        """Return a layer's tensors."""
        file = self._files[layer]
        stamps = file.stamps
        found = file.map() if self._copier is None else self._copy(self._copier, file)
        if self._check and not file.is_as_written():
            self._check_samples(file.path, file.record, found)
        put_stamps(
            ((found[name], stamp) for name, stamp in stamps.items()),
            digests=(one.digest for one in file.record.tensors if one.stamped),
            unwritten=True,
        )
        for name, stamp in stamps.items():
            if stamp.is_shuffled:
                setattr(found[name], AITER_TAG, True)
        return found

    def read_ahead(self, layer: int) -> None:
        """Map the file of the layer that is asked for next."""
        if self._copier is None:
            self._files[layer].map_ahead()

    def _check_samples(self, path: Path, record: FileRecord, found: Mapping[str, torch.Tensor]) -> None:
        """Compare samples with what was written.

        They are read as the tensors will be: of a mapping the pages are needed soon anyway, of a GPU's memory it is
        what arrived.

        Raises:
            LaidOutError: a tensor holds something else.
        """
        samples = [sample_memory(found[one.name].untyped_storage(), 0, one.nbytes) for one in record.tensors]
        together = torch.cat(samples).cpu() if samples else torch.empty(0)  # a GPU is waited for once
        parts = together.split([sample.numel() for sample in samples])
        for one, sample in zip(record.tensors, parts, strict=True):
            if digest_of(sample) != one.sample:
                raise LaidOutError(f"{path}: tensor {one.name} does not hold what was written: verify it")

    def _copy(self, copier: DeviceCopier, file: RankFile) -> dict[str, torch.Tensor]:
        """Return copies in the device's memory, which have arrived."""
        file.check_unchanged()
        tensors = file.record.tensors
        found = {one.name: torch.empty(one.shape, dtype=dtype_of(one), device=self._device) for one in tensors}
        copier.fill(file.path, [(found[one.name], one.begin) for one in tensors])
        return found


class _CheckpointReader:
    """Reads layers from the checkpoint, and lays them out."""

    def __init__(self, plan: RunPlan, tp_rank: int, ep_rank: int, device: torch.device) -> None:
        self._plan, self._tp_rank, self._ep_rank, self._device = plan, tp_rank, ep_rank, device

    def read_ahead(self, layer: int) -> None:
        """Do nothing: a layer that is laid out takes memory."""

    def layer(self, layer: int) -> dict[str, torch.Tensor]:
        """Return a layer's tensors."""
        plan, decision = self._plan.layers[layer]
        read = self._plan.checkpoint.rank(layer, plan.query, tp_rank=self._tp_rank, ep_rank=self._ep_rank)
        tensors = {role: tensor.to(self._device, copy=True) for role, tensor in read.items()}
        apply(tensors, decision, last_rank=self._tp_rank == plan.query.tp - 1)
        return {plan.name_of(role, layer): tensor for role, tensor in tensors.items()}


def _from_checkpoint(
    folder: Path,
    rank: Rank,
    device: torch.device,
    registry: Registry | None,
    fields: Mapping[str, Any],
    reason: str,
) -> LaidOutRank:
    plan = RunPlan.of(Checkpoint.open(folder, registry), fields)
    tp_rank, ep_rank = _ranks(rank, *plan.ranks)
    reader = _CheckpointReader(plan, tp_rank, ep_rank, device)
    queries = {layer: one.query for layer, (one, _) in plan.layers.items()}
    registry = plan.checkpoint.registry
    return LaidOutRank(tp_rank, ep_rank, tuple(plan.layers), True, reason, queries, registry, reader)

"""Plain tensors of a checkpoint, taken back from laid-out files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from preshuffle.layouts.checkpoint import TORCH_DTYPES, MappedShards, Part, ShardFile, write_role
from preshuffle.layouts.laid_out.files.checked_file import check_header, stamp_in
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.manifest import FileRecord, LayerPlan, Manifest, TensorRecord
from preshuffle.layouts.laid_out.files.progress import Progress
from preshuffle.layouts.laid_out.files.shard_targets import ShardTargets
from preshuffle.layouts.laid_out.runs.rank_role import CHUNK
from preshuffle.layouts.laid_out.runs.run_plan import why_joined
from preshuffle.layouts.loader import undo_layout
from preshuffle.layouts.stamps import Stamp
from preshuffle.registry.base.words import Role

_SPANNING: Final = ("reduce_max",)
"""Steps behind which experts cannot be told apart."""


def restore_rank_layer(
    out: Path, manifest: Manifest, record: FileRecord, shards: MappedShards, targets: ShardTargets, progress: Progress
) -> None:
    """Write one rank's plain tensors of a layer to the checkpoint's places.

    Args:
        out: the laid-out checkpoint.
        manifest: its manifest.
        record: the rank's file of that layer.
        shards: its files, opened.
        targets: the checkpoint's files, to be written.
        progress: is told how far the work is.

    Raises:
        LaidOutError: the file is not the manifest's.
    """
    layer, tp_rank, ep_rank = record.layer, record.tp_rank, record.ep_rank
    if layer is None or tp_rank is None or ep_rank is None:
        raise LaidOutError(f"{record.file}: is no rank's file")
    path = out / record.file
    shard = check_header(path, record)
    plan = manifest.plan_of(layer)
    kept = manifest.kept_names()
    part = plan.part(tp_rank, ep_rank)
    for tensor in record.tensors:
        role = tensor.role
        if role is None or role not in plan.entries:
            continue
        if _why_lost(plan, tensor) is not None and {*plan.flat_names(role, layer)} <= kept:
            continue
        for experts, plain in plain_experts(path, shard, tensor, role, part, shards):
            with targets.writing() as writing:
                write_role(writing.tensor, role, plan.entries[role], layer, part.some(*experts), plain)
            progress.advance(plain.numel() * plain.element_size())


def plain_experts(
    path: Path, shard: ShardFile, tensor: TensorRecord, role: Role, part: Part, shards: MappedShards
) -> Iterator[tuple[tuple[int, int], torch.Tensor]]:
    """Yield ranges of a rank's experts with their plain tensors."""
    count = part.count
    stamp = stamp_in(shard, tensor.name)[0] if tensor.stamped else None
    for first, past in _ranges(tensor, stamp, count):
        begin = tensor.begin + tensor.nbytes * first // count
        end = tensor.begin + tensor.nbytes * past // count
        with shards.reading() as reading:
            data = reading.bytes(path, begin, end).clone()
        yield (first, past), _plain(data, tensor, role, stamp, past - first, count)


def unrestorable(manifest: Manifest) -> list[str]:
    """Return the checkpoint's tensors that cannot be restored.

    Laid-out bytes do not say what they were, and they were not kept.
    """
    kept = manifest.kept_names()
    found: dict[str, str] = {}
    for record in manifest.ranks:
        if record.layer is None:
            continue
        plan = manifest.plan_of(record.layer)
        for tensor in record.tensors:
            why = _why_lost(plan, tensor)
            if why is None or tensor.role is None:
                continue
            found.update({name: why for name in plan.flat_names(tensor.role, record.layer) if name not in kept})
    return [f"{name} ({why})" for name, why in found.items()]


def _why_lost(plan: LayerPlan, tensor: TensorRecord) -> str | None:
    if tensor.lost:
        return ", ".join(tensor.lost)
    if tensor.role is None or tensor.role not in plan.entries:
        return None
    return why_joined(tensor.role, plan.entries[tensor.role])


def _ranges(tensor: TensorRecord, stamp: Stamp | None, count: int) -> Iterator[tuple[int, int]]:
    step = count
    if stamp is not None and _is_by_expert(stamp, count):
        step = max(1, CHUNK * count // max(tensor.nbytes, 1))
    for first in range(0, count, step):
        yield first, min(first + step, count)


def _is_by_expert(stamp: Stamp, count: int) -> bool:
    return (
        stamp.flat_rows is None
        and stamp.tail is None
        and not set(_SPANNING) & set(stamp.steps)
        and stamp.physical_shape[0] == stamp.shape[0] == stamp.source_shape[0] == count
        and len(stamp.physical_shape) == len(stamp.shape)
    )


def _plain(
    data: torch.Tensor, tensor: TensorRecord, role: Role, stamp: Stamp | None, experts: int, count: int
) -> torch.Tensor:
    dtype = getattr(torch, tensor.torch_dtype) if tensor.torch_dtype else TORCH_DTYPES[tensor.dtype]
    if stamp is None:
        return data.view(dtype).view(tensor.shape)
    if experts != count:
        stamp = replace(
            stamp,
            shape=(experts, *stamp.shape[1:]),
            source_shape=(experts, *stamp.source_shape[1:]),
            physical_shape=(experts, *stamp.physical_shape[1:]),
            passed_shape=_fewer(stamp.passed_shape, experts, count),
        )
    # plain bytes of the physical size would be moved in place: into new memory they go in one move
    stamp = replace(stamp, padded_source=False)
    return undo_layout(role, data.view(dtype).view(stamp.tensor_shape), stamp)


def _fewer(shape: tuple[int, ...] | None, experts: int, count: int) -> tuple[int, ...] | None:
    return None if shape is None else (shape[0] * experts // count, *shape[1:])

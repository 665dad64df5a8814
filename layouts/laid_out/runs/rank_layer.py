"""Laying out of one layer of one rank, some experts at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from math import gcd, prod
from typing import Final

import torch

from preshuffle.layouts.checkpoint import MappedShards
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.tensor_writer import TensorWriter
from preshuffle.layouts.laid_out.runs.rank_role import RankRole, read_plain
from preshuffle.layouts.laid_out.runs.run_plan import RankLayer, RunPlan
from preshuffle.layouts.stamps import Stamp
from preshuffle.layouts.tensors import as_bytes, dtype_name
from preshuffle.registry.base.words import BITS, Role

Advance = Callable[[int], None]
"""Called with every number of bytes that were written; may raise to stop the work."""

STORED_AS: Final[dict[torch.dtype, str]] = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int8: "I8",
    torch.int32: "I32",
}
"""Safetensors' names of dtypes; others are stored as bytes, which every release of it reads."""


def lay_out_rank_layer(
    unit: RankLayer, plan: RunPlan, shards: MappedShards, writer: TensorWriter, advance: Advance
) -> None:
    """Lay out one layer of one rank into a file.

    Args:
        unit: which.
        plan: of the whole run.
        shards: the checkpoint's files.
        writer: of the file.
        advance: is told how far the work is.

    Raises:
        CheckpointError: a tensor is missing, cut short or of another shape or dtype.
        LayoutError: a tensor is not what the decision takes.
    """
    part = unit.plan.part(unit.tp_rank, unit.ep_rank)
    for role in _in_order(unit):
        tensor = writer.tensor(unit.plan.name_of(role, unit.layer), role)
        if role not in unit.decision.tensors:
            plain = read_plain(unit, plan, shards, (role,), part)[role]
            tensor.write(as_bytes(plain))
            tensor.finish(*_stored(plain.dtype, tuple(plain.shape)))
            continue
        stamp: Stamp | None = None
        dtype = torch.uint8
        rank_role = RankRole(unit, plan, shards, role, part)
        for experts in rank_role.ranges():
            job, laid = rank_role.lay_out(experts)
            tensor.write(laid)
            advance(laid.numel())
            if stamp is None:
                stamp = replace(_grown(job.stamp, part.count), lost=plan.inherited.get((unit.layer, role), ()))
            lost = tuple(dict.fromkeys((*stamp.lost, *job.stamp.lost)))
            stamp = stamp if lost == stamp.lost else replace(stamp, lost=lost)
            dtype = job.target_dtype
        if stamp is None:
            raise LaidOutError(f"{unit.file}: rank (tp {unit.tp_rank}, ep {unit.ep_rank}) has no experts")
        tensor.finish(*_stored(dtype, stamp.tensor_shape), stamp=stamp)


def _in_order(unit: RankLayer) -> list[Role]:
    """Return the roles to write, those that keep the others aligned first."""
    decided = unit.decision.tensors
    stored = unit.plan.entries
    sizes: dict[Role, int] = {}
    for role in (*decided, *(role for role in stored if role not in decided)):
        if role in stored:
            one = decided.get(role)
            sizes[role] = prod(one.physical_shape) * BITS[one.dtype] // 8 if one else 1
    return sorted(sizes, key=lambda role: -gcd(sizes[role], 4096))


def _grown(stamp: Stamp, experts: int) -> Stamp:
    """Return the stamp of all of a rank's experts from that of some."""
    some = stamp.source_shape[0]
    if stamp.flat_rows is not None or some == experts or some == 0:
        return stamp

    def grown(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0] * experts // some, *shape[1:])

    return replace(
        stamp, shape=grown(stamp.shape), source_shape=grown(stamp.source_shape),
        physical_shape=grown(stamp.physical_shape),
        passed_shape=grown(stamp.passed_shape) if stamp.passed_shape else None,
    )  # fmt: skip


def _stored(dtype: torch.dtype, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...], str | None]:
    """Return how a tensor is stored: safetensors' dtype, shape, and torch's dtype where that is another."""
    if dtype in STORED_AS:
        return STORED_AS[dtype], shape, None
    width = dtype.itemsize
    return ("U32", shape, dtype_name(dtype)) if width == 4 else ("U8", shape, dtype_name(dtype))


def description_of(unit: RankLayer, key: str, registry_digest: str, sources: dict[str, str]) -> dict[str, object]:
    """Return what a file's header says of it."""
    query = unit.plan.query
    return {
        "key": key,
        "layer": unit.layer,
        "tp": query.tp,
        "tp_rank": unit.tp_rank,
        "ep": query.ep,
        "ep_rank": unit.ep_rank,
        "recipe": unit.plan.recipe,
        "decision_digest": unit.plan.decision_digest,
        "registry_digest": registry_digest,
        "call": json.loads(unit.decision.call.model_dump_json(exclude_none=True)),
        "query": json.loads(query.model_dump_json(exclude_none=True, exclude_defaults=True)),
        "sources": sources,
    }

"""Laying out of one layer of one rank, some experts at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from math import gcd, prod
from typing import Final

import torch

from preshuffle.layouts.checkpoint import MappedShards, Part, RoleReader
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.tensor_writer import TensorWriter
from preshuffle.layouts.laid_out.runs.run_plan import RankLayer, RunPlan
from preshuffle.layouts.loader import Job, RoleTensors, flat_rows_of, pack_int4, prepare_job
from preshuffle.layouts.moves import lay_out
from preshuffle.layouts.stamps import Stamp
from preshuffle.layouts.tensors import as_bytes, dtype_name
from preshuffle.registry import Decision, LayoutError, TensorDecision
from preshuffle.registry.base.frozen import FrozenDict
from preshuffle.registry.base.words import BITS, Role

CHUNK: Final = 4 << 20
"""Laid-out bytes that are made at once, at least one expert: what a processor's caches take, about."""
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
        for first, past in experts_of(unit, role, part):
            job, laid = lay_out_experts(unit, plan, shards, role, part, (first, past))
            tensor.write(laid)
            advance(laid.numel())
            before = stamp.lost if stamp else plan.inherited.get((unit.layer, role), ())
            lost = tuple(dict.fromkeys((*before, *job.stamp.lost)))
            stamp = replace(stamp or _grown(job.stamp, part.count), lost=lost)
            dtype = job.target_dtype
        if stamp is None:
            raise LaidOutError(f"{unit.file}: rank (tp {unit.tp_rank}, ep {unit.ep_rank}) has no experts")
        tensor.finish(*_stored(dtype, stamp.tensor_shape), stamp=stamp)


def lay_out_experts(
    unit: RankLayer, plan: RunPlan, shards: MappedShards, role: Role, part: Part, experts: tuple[int, int]
) -> tuple[Job, torch.Tensor]:
    """Read some experts of a role and lay them out.

    Args:
        unit: layer and rank.
        plan: of the whole run.
        shards: the checkpoint's files.
        role: which tensor.
        part: the rank's.
        experts: first, and past the last, counted on the rank.

    Returns:
        The job, and flat laid-out bytes.
    """
    some = part.some(*experts)
    decision = _of_experts(unit.decision, some.count)
    needed = (role, *_scales_for(role, decision))
    tensors = RoleTensors(dict(read_plain(unit, plan, shards, needed, some)))
    tensors.make_defaults(decision)
    last = unit.tp_rank == unit.plan.query.tp - 1
    try:
        job = prepare_job(role, tensors, decision, last)
    except LayoutError as error:
        where = f"layer {unit.layer}, rank (tp {unit.tp_rank}, ep {unit.ep_rank}), experts {experts[0]}.."
        raise LayoutError(f"{where}: {error}") from None
    return job, _laid_out(job)


def read_plain(
    unit: RankLayer, plan: RunPlan, shards: MappedShards, roles: tuple[Role, ...], part: Part
) -> dict[str, torch.Tensor]:
    """Read plain tensors of a part, each in memory of its own."""
    entries = unit.plan.entries
    plain: dict[str, torch.Tensor] = {}
    with shards.reading() as reading:
        reader = RoleReader(plan.checkpoint.folder, plan.checkpoint.shards, reading.tensor)
        for role in roles:
            if role in entries:
                read = reader.role(role, entries[role], unit.layer, part)
                # one tensor of all experts may come as a view of the mapping
                plain[role] = read if entries[role].per_expert else read.clone()
    return plain


def experts_of(unit: RankLayer, role: Role, part: Part) -> Iterator[tuple[int, int]]:
    """Yield ranges of a rank's experts that are laid out at once.

    All of them where tiles, or a step, span experts.
    """
    decided, count = unit.decision.tensors[role], part.count
    step = count
    if is_by_expert(decided):
        expert = prod(decided.physical_shape[1:]) * BITS[decided.dtype] // 8
        step = max(1, CHUNK // max(expert, 1))
    for first in range(0, count, step):
        yield first, min(first + step, count)


def is_by_expert(decided: TensorDecision) -> bool:
    """Return whether each expert's bytes depend on that expert alone."""
    return (
        flat_rows_of(decided) is None
        and "reduce_max" not in decided.steps
        and decided.tail is None
        and len(decided.physical_shape) == len(decided.logical_shape)
    )


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


def _scales_for(role: Role, decision: Decision) -> tuple[Role, ...]:
    """Return the roles whose plain values a role's steps need beside its own."""
    if role.endswith("_weight") and "requantize_max" in decision.tensors[role].steps:
        scale: Role = "w13_weight_scale" if role == "w13_weight" else "w2_weight_scale"
        return (scale,)
    return ()


# Process-wide: a pure function of frozen values that every layer repeats.
@lru_cache(maxsize=256)
def _of_experts(decision: Decision, experts: int) -> Decision:
    """Return a decision of some of its experts."""
    tensors = {role: _fewer(decided, experts) for role, decided in decision.tensors.items()}
    return decision.model_copy(update={"tensors": FrozenDict(tensors)})


def _fewer(decided: TensorDecision, experts: int) -> TensorDecision:
    if not is_by_expert(decided) or decided.logical_shape[0] == experts:
        return decided
    all_experts = decided.logical_shape[0]
    shapes = ("logical_shape", "physical_shape", "short_shape", "passed_shape")
    changed = {
        name: (shape[0] * experts // all_experts, *shape[1:])
        for name in shapes
        if (shape := getattr(decided, name)) is not None
    }
    return decided.model_copy(update=changed)


def _laid_out(job: Job) -> torch.Tensor:
    """Run a job into new memory; return flat bytes."""
    plain = job.staged(job.plain())
    geometry = job.geometry
    laid = torch.empty(geometry.experts * geometry.expert_bytes, dtype=torch.uint8)
    lay_out(geometry.plan(geometry.experts), plain, laid, job.fill)
    return pack_int4(laid) if job.packs else laid


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

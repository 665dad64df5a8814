"""One role of one rank's layer, laid out some experts at once.

Where no step changes values, bytes go from the mapped checkpoint to their laid-out places in one copy. Else they are
read into memory, changed, and laid out from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from threading import local
from typing import Final

import torch

from preshuffle.layouts.checkpoint import MappedShards, Part, RoleReader
from preshuffle.layouts.laid_out.runs.run_plan import RankLayer, RunPlan
from preshuffle.layouts.loader import Job, RoleTensors, flat_rows_of, pack_int4, prepare_job
from preshuffle.layouts.moves import lay_out, lay_out_on_thread
from preshuffle.layouts.tensors import needs_cast
from preshuffle.registry import Decision, LayoutError, TensorDecision
from preshuffle.registry.base.frozen import FrozenDict
from preshuffle.registry.base.words import BITS, Role
from preshuffle.registry.entries import SECOND_LEVEL

CHUNK: Final = 4 << 20
"""Laid-out bytes that are made at once, at least one expert: what a processor's caches take, about."""
Pieces = list[list[torch.Tensor]]
"""Stored rows ``[rows, K]`` by expert, and gate's before up's where they are stored apart."""


class RankRole:
    """Lays out one role of a rank's layer; for one thread."""

    def __init__(self, unit: RankLayer, plan: RunPlan, shards: MappedShards, role: Role, part: Part) -> None:
        """Read nothing yet.

        Args:
            unit: layer and rank.
            plan: of the whole run.
            shards: the checkpoint's files.
            role: which tensor; the decision has it.
            part: the rank's.
        """
        self._unit, self._plan, self._shards, self._role, self._part = unit, plan, shards, role, part
        self._decided = unit.decision.tensors[role]
        self._last = unit.tp_rank == unit.plan.query.tp - 1
        self._in_one_pass = role.endswith("_weight") and not self._decided.steps and is_by_expert(self._decided)
        self._decisions: dict[int, Decision] = {}
        self._jobs: dict[tuple[int, ...], Job] = {}

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Yield ranges of experts that are laid out at once.

        All of them where tiles, or a step, span experts.
        """
        count = step = self._part.count
        if is_by_expert(self._decided):
            expert = prod(self._decided.physical_shape[1:]) * BITS[self._decided.dtype] // 8
            step = max(1, CHUNK // max(expert, 1))
        for first in range(0, count, step):
            yield first, min(first + step, count)

    def lay_out(self, experts: tuple[int, int]) -> tuple[Job, torch.Tensor]:
        """Read some experts and lay them out.

        Args:
            experts: first, and past the last, counted on the rank.

        Returns:
            The job, and flat laid-out bytes, in memory that the thread's next call overwrites.

        Raises:
            CheckpointError: a tensor is missing, cut short or of another shape or dtype.
            LayoutError: it is not what the decision takes.
        """
        some = self._part.some(*experts)
        decision = self._decision(some.count)
        with self._located(experts[0]):
            if self._in_one_pass:
                found = self._directly(some, decision)
                if found is not None:
                    return found
                self._in_one_pass = False
            needed = (self._role, *_scales_for(self._role, decision))
            tensors = RoleTensors(dict(read_plain(self._unit, self._plan, self._shards, needed, some)))
            tensors.make_defaults(decision)
            job = prepare_job(self._role, tensors, decision, self._last)
        return job, _laid_out(job)

    def _directly(self, part: Part, decision: Decision) -> tuple[Job, torch.Tensor] | None:
        """Lay out stored rows where they are; None where they must change first."""
        entry = self._unit.plan.entries[self._role]
        with self._shards.reading() as reading:
            reader = RoleReader(self._plan.checkpoint.folder, self._plan.checkpoint.shards, reading.tensor)
            pieces = reader.pieces(self._role, entry, self._unit.layer, part)
            job = self._job(pieces, decision)
            if job is None or not _is_direct(job, pieces):
                return None
            return job, _copied(job, pieces)

    def _job(self, pieces: Pieces, decision: Decision) -> Job | None:
        """Return the checked job of rows of one shape and dtype; None where they differ."""
        first = pieces[0][0]
        kinds = {(piece.shape, piece.dtype) for expert in pieces for piece in expert}
        if len(kinds) != 1 or first.dim() < 2:
            return None
        shape = (len(pieces), len(pieces[0]) * first.shape[0], *first.shape[1:])
        if shape not in self._jobs:
            stand_in = torch.empty(shape, dtype=first.dtype)  # checked by its shape; its bytes are never looked at
            self._jobs[shape] = prepare_job(self._role, RoleTensors({self._role: stand_in}), decision, self._last)
        return self._jobs[shape]

    def _decision(self, experts: int) -> Decision:
        """Return the decision of some of the experts."""
        if experts not in self._decisions:
            whole = self._unit.decision
            tensors = {role: _of_fewer(decided, experts) for role, decided in whole.tensors.items()}
            self._decisions[experts] = whole.model_copy(update={"tensors": FrozenDict(tensors)})
        return self._decisions[experts]

    @contextmanager
    def _located(self, expert: int) -> Iterator[None]:
        """Say of a refused tensor where it is."""
        try:
            yield
        except LayoutError as error:
            unit = self._unit
            where = f"layer {unit.layer}, rank (tp {unit.tp_rank}, ep {unit.ep_rank}), experts {expert}.."
            raise LayoutError(f"{where}: {error}") from None


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
                second = entries[role].second
                if second is not None:
                    plain[f"{role}{SECOND_LEVEL}"] = reader.second(role, second, unit.layer, part)
    return plain


def is_by_expert(decided: TensorDecision) -> bool:
    """Return whether each expert's bytes depend on that expert alone."""
    return (
        flat_rows_of(decided) is None
        and "reduce_max" not in decided.steps
        and decided.tail is None
        and len(decided.physical_shape) == len(decided.logical_shape)
    )


def _is_direct(job: Job, pieces: Pieces) -> bool:
    """Return whether stored rows need nothing but their places."""
    geometry = job.geometry
    live = (geometry.live_rows, geometry.live_k) == (geometry.rows, geometry.k) or not geometry.padded_source
    halves = len(pieces[0])
    return (
        job.stage is None
        and not (job.packs or job.values.changes or job.values.reduces)
        and not needs_cast(job.tensor.dtype, job.target_dtype)
        and live
        and (halves == 1 or (halves == geometry.halves and not geometry.alternating))
    )


def _copied(job: Job, pieces: Pieces) -> torch.Tensor:
    """Copy each expert's rows to their laid-out places; fill the pads."""
    geometry = job.geometry
    size = geometry.expert_bytes
    laid = _MEMORY.of(len(pieces) * size)
    if geometry.plan(1).filled:
        laid.fill_(job.fill)
    for number, expert in enumerate(pieces):
        target = laid[number * size : (number + 1) * size]
        for half, piece in enumerate(expert):
            rows, row = _flat_rows(piece)
            lay_out_on_thread(geometry.plan_rows(row, half if len(expert) > 1 else None), rows, target)
    return laid


def _flat_rows(piece: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return rows as flat bytes, and the bytes from row to row."""
    rows = piece.flatten(1).view(torch.uint8)
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    row = int(rows.stride(0))
    return rows.as_strided(((rows.shape[0] - 1) * row + rows.shape[1],), (1,)), row


class _ThreadMemory(local):
    """Memory of a thread that is used again and again.

    New memory costs more than the copy into it: the kernel zeroes every page.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def of(self, nbytes: int) -> torch.Tensor:
        """Return flat bytes; what they hold is not defined."""
        if self._memory.numel() < nbytes:
            self._memory = torch.empty(nbytes, dtype=torch.uint8)
        return self._memory[:nbytes]


# Process-wide: each thread has its own, for as long as it lives.
_MEMORY: Final = _ThreadMemory()


def _scales_for(role: Role, decision: Decision) -> tuple[Role, ...]:
    """Return the roles whose plain values a role's steps need beside its own."""
    if role.endswith("_weight") and "requantize_max" in decision.tensors[role].steps:
        scale: Role = "w13_weight_scale" if role == "w13_weight" else "w2_weight_scale"
        return (scale,)
    return ()


def _of_fewer(decided: TensorDecision, experts: int) -> TensorDecision:
    """Return a tensor's decision for some of its experts."""
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

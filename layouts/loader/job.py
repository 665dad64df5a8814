"""One tensor's part of an apply, checked and planned beforehand.

Nothing is moved before every tensor of the layer is checked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch

from preshuffle.layouts.loader.aiter_authority import Backend, LayoutJob, can_import, is_native, run_aiter_function
from preshuffle.layouts.loader.geometry import Geometry
from preshuffle.layouts.loader.input_checks import by_expert, check_dtype, check_shape, source_shape
from preshuffle.layouts.loader.int4 import pack_int4, unpack_int4
from preshuffle.layouts.loader.planning import JobPlan, plan_job
from preshuffle.layouts.loader.steps import (
    REDUCTIONS,
    ValueSteps,
    check_reduced,
    find_lossy_steps,
    prepare_steps,
)
from preshuffle.layouts.loader.target import RoleTensors
from preshuffle.layouts.moves import SCRATCH_BYTES, inference_writable, lay_out, lay_out_cast, take_back
from preshuffle.layouts.stamps import Loss, Stamp, check_writable, drop_stamp, put_stamp
from preshuffle.layouts.tensors import ACCEPTED_DTYPES, FLOAT_DTYPES, as_bytes, cast_back, needs_cast, survives_cast
from preshuffle.registry import Decision, LayoutError
from preshuffle.registry.base.words import Role


@dataclass(frozen=True, slots=True)
class Job:
    """Planned work on one tensor.

    Attributes:
        tensor: its plain values; of a scale that its steps reduce, already the reduced ones.
        plan: what its shape and dtype determine.
        stamp: of the result.
    """

    role: Role
    tensor: torch.Tensor
    plan: JobPlan
    stamp: Stamp
    values: ValueSteps

    @property
    def geometry(self) -> Geometry:
        """Relates plain rows to laid-out bytes."""
        return self.plan.geometry

    @property
    def stage(self) -> Geometry | None:
        """How rows become ``[experts * rows, K]`` first, or None."""
        return self.plan.stage

    @property
    def target_dtype(self) -> torch.dtype:
        """Dtype of the laid-out tensor."""
        return self.plan.dtype

    @property
    def in_place(self) -> bool:
        """Whether the result fits the tensor's own storage."""
        return self.plan.in_place

    @property
    def last(self) -> bool | None:
        """Whether it is the last rank's.

        None where the ranks do not differ.
        """
        return self.plan.last

    @property
    def fill(self) -> int:
        """The byte in the pads."""
        return self.stamp.fill

    @property
    def packs(self) -> bool:
        """Whether laid-out values are packed afterwards."""
        return "pack_int4" in self.stamp.steps

    def scratch_for(self, scratch_bytes: int) -> int:
        """Return the scratch bytes beside source and result."""
        if not self.in_place or self.plan.stage is not None:
            return 0
        return self.plan.mover.scratch_for(as_bytes(self.tensor.detach()), scratch_bytes)

    def work(self) -> LayoutJob:
        """Describe the job as AITER's functions need it."""
        geometry = self.plan.geometry
        shape = (geometry.experts, geometry.halves * geometry.rows, geometry.k)
        return LayoutJob(geometry.layout, shape, geometry.plan_for, self.plan.dtype, self.fill)

    def run(self, scratch: torch.Tensor, backend: Backend) -> tuple[torch.Tensor, Stamp]:
        """Apply the steps and move the bytes; return tensor and stamp.

        The tensor is what the kernel gets, without AITER's tag.
        """
        if self.in_place:
            with inference_writable(self.tensor):
                return self._run(scratch, backend)
        return self._run(scratch, backend)

    def _run(self, scratch: torch.Tensor, backend: Backend) -> tuple[torch.Tensor, Stamp]:
        if self.plan.casts_in_move and (backend == "native" or not can_import()):
            return self._cast(), self.stamp
        plain = self.staged(self.plain())
        native = is_native(backend, self.work, plain)
        stamp = self.stamp if native or backend != "auto" else replace(self.stamp, aiter_bytes=True)
        if native and self.in_place and self.stage is None:
            self.plan.mover.lay_out(plain, scratch, self.fill)
            return self._as_passed(), stamp
        laid = as_bytes(self.tensor.detach()) if self.in_place else self._empty(plain)
        if native:
            lay_out(self.plan.copies, plain, laid, self.fill)
        else:
            laid.copy_(run_aiter_function(self.work(), plain))
        if self.in_place:
            return self._as_passed(), stamp
        packed = pack_int4(laid) if self.packs else laid
        return packed.view(self.plan.dtype).view(self.stamp.tensor_shape), stamp

    def _cast(self) -> torch.Tensor:
        """Cast the values while they are moved, into new memory."""
        size = self.plan.copies.nbytes // self.plan.dtype.itemsize
        laid = torch.empty(size, dtype=self.plan.dtype, device=self.tensor.device)
        lay_out_cast(self.plan.copies, self.tensor.detach().view(-1), laid, self.fill)
        return laid.view(self.stamp.tensor_shape)

    def plain(self) -> torch.Tensor:
        """Return the plain bytes after the steps.

        In the tensor's own storage where the job is in place, else in a copy.
        """
        cast = self.plan.casts
        values = (self.tensor.to(self.plan.dtype) if cast else self.tensor).detach()
        if self.values.changes:
            values = values if cast or self.in_place else values.clone()
            self.values.change_(values)
        return as_bytes(values)

    def staged(self, plain: torch.Tensor) -> torch.Tensor:
        """Return padded rows of all experts behind each other.

        The plain bytes themselves where that is not needed.
        """
        stage = self.stage
        if stage is None:
            return plain
        rows = torch.empty(stage.experts * stage.expert_bytes, dtype=torch.uint8, device=plain.device)
        lay_out(stage.plan(stage.experts), plain, rows, self.fill)
        if self.stamp.tail is not None:
            first, fill = self.stamp.tail
            rows.view(-1, stage.k)[:, first * self.plan.dtype.itemsize :] = fill
        return rows

    def _empty(self, plain: torch.Tensor) -> torch.Tensor:
        size = self.plan.geometry.experts * self.plan.geometry.expert_bytes
        return torch.empty(size, dtype=torch.uint8, device=plain.device)

    def _as_passed(self) -> torch.Tensor:
        """Return the tensor under the dtype and the shape that the kernel expects."""
        tensor = self.tensor if self.tensor.dtype == self.plan.dtype else self.tensor.view(self.plan.dtype)
        return tensor if self.stamp.passed_shape is None else tensor.detach().view(self.stamp.passed_shape)


def prepare_job(role: Role, tensors: RoleTensors, decision: Decision, last_rank: bool) -> Job:
    """Check one tensor against a decision and plan its job.

    Raises:
        LayoutError: shape, dtype, device, strides or values are not what the decision says; names what would be.
    """
    decided, tensor = decision.tensors[role], tensors[role]
    origin_shape, origin_dtype = tensor.shape, tensor.dtype
    if tensor.is_contiguous():
        tensor = by_expert(role, tensor, decided)
    if tensor.device.type == "meta":
        raise LayoutError(f"{role} is on the meta device: it has no bytes")
    if not tensor.is_contiguous():
        raise LayoutError(f"{role} of shape {tuple(tensor.shape)} is not contiguous (strides {tensor.stride()})")
    values = _values(role, tensor, decision, tensors)

    def planned() -> JobPlan:
        plain, origin = (tensor.shape, tensor.dtype), (origin_shape, origin_dtype)
        return plan_job(role, decided, decision.recipe, decision.decision_digest, plain, origin, last_rank)

    if not values.reduces:
        plan = planned()
    lost: tuple[Loss, ...] = find_lossy_steps(values, tensor)
    if values.reduces:
        tensor = values.reduced(tensor)
        plan = planned()
    elif plan.casts and not survives_cast(tensor.detach(), plan.dtype, tensor.dtype):
        lost = (*lost, "cast")
    if tensors.is_default(role):
        lost = (*lost, "default")
    job = Job(role, tensor, plan, replace(plan.stamp, lost=lost) if lost else plan.stamp, values)
    if job.in_place:
        check_writable(role, tensor)
    return job


def _shard_scales(scale: Role, decision: Decision, tensors: RoleTensors) -> torch.Tensor | None:
    """Return the scales of gate and up: a weight's scale, or the scale of it where that is folded in."""
    decided = decision.tensors.get(scale)
    if decided is not None and "fold_max" in decided.steps:
        return tensors.second(scale)
    return tensors[scale] if scale in tensors.names else None


def _values(role: Role, tensor: torch.Tensor, decision: Decision, tensors: RoleTensors) -> ValueSteps:
    decided = decision.tensors[role]
    if not decided.steps:
        return ValueSteps(role, (), tensor.dtype)
    scale: Role = "w13_weight_scale" if role.startswith("w13") else "w2_weight_scale"
    shards = _shard_scales(scale, decision, tensors) if role.endswith("_weight") else None
    values = prepare_steps(role, decided, tensor, shards, tensors.second(role))
    if values.reduces:
        check_reduced(role, decided, tensor)
    return values


def undo_layout(role: Role, tensor: torch.Tensor, stamp: Stamp) -> torch.Tensor:
    """Return the plain tensor of a laid-out one.

    Pads are stripped, rows are in the checkpoint's order.

    A tensor that had the physical size before keeps its storage, and loses its stamp; it is broken while it is moved.
    """
    values = ValueSteps(role, stamp.steps, tensor.dtype)
    if values.reduces:
        return values.expanded(tensor, stamp.source_shape).to(stamp.source_dtype)
    if keeps_storage(role, stamp):
        _undo_in_place(tensor, stamp, values)
        if tensor.dtype == stamp.source_dtype and tuple(tensor.shape) == stamp.source_shape:
            return tensor
        return tensor.detach().view(stamp.source_dtype).view(stamp.source_shape)
    data = as_bytes(tensor.detach())
    plain = _restore_plain_bytes(
        stamp, tensor.element_size(), unpack_int4(data) if "pack_int4" in stamp.steps else data
    )
    plain = plain.view(_laid_out_dtype(stamp))
    values.restore_(plain.view(1, -1))
    return cast_back(plain, stamp.source_dtype).view(stamp.source_shape)


def is_last_rank(role: Role, stamp: Stamp, decision: Decision) -> bool:
    """Return whether a stamped tensor is the last rank's.

    The last rank has less than the others.
    """
    decided = decision.tensors[role]
    if decided.short_shape in (None, decided.logical_shape):
        return False
    return stamp.shape == source_shape(decided.short_shape or (), decided, stamp.source_dtype)


def check_fits(role: Role, stamp: Stamp, decision: Decision, last_rank: bool) -> None:
    """Check that a stamped tensor's plain form fits a decision.

    Raises:
        LayoutError: it has another shape or dtype.
    """
    decided = decision.tensors[role]
    if role.endswith("_scale") and REDUCTIONS & {*stamp.steps, *decided.steps}:
        return
    plain = torch.empty(stamp.source_shape, dtype=stamp.source_dtype, device="meta")
    plain = by_expert(role, plain, decided)
    check_shape(role, plain, decided, check_dtype(role, plain, decided), last_rank)


def _undo_in_place(tensor: torch.Tensor, stamp: Stamp, values: ValueSteps) -> None:
    data, item = as_bytes(tensor.detach()), tensor.element_size()
    moved = Geometry.of(stamp, item).in_place
    staged = _restore_plain_bytes(stamp, item, data) if stamp.flat_rows is not None else None
    size = 0 if staged is not None else moved.chunk(SCRATCH_BYTES) * moved.expert_bytes
    scratch = torch.empty(size, dtype=torch.uint8, device=tensor.device)
    put_stamp(tensor, replace(stamp, state="broken"))
    with inference_writable(tensor):
        if staged is None:
            moved.take_back(data, scratch)
        else:
            data[: staged.numel()].copy_(staged)
            data[staged.numel() :].zero_()
        values.restore_(tensor.detach())
    drop_stamp(tensor)


def keeps_storage(role: Role, stamp: Stamp) -> bool:
    """Return whether plain values go back into the tensor's storage.

    So it is where they came out of it.
    """
    if role.endswith("_scale") and REDUCTIONS & set(stamp.steps):
        return False
    return (
        stamp.padded_source
        and "pack_int4" not in stamp.steps
        and not needs_cast(stamp.source_dtype, _laid_out_dtype(stamp))
    )


def _laid_out_dtype(stamp: Stamp) -> torch.dtype:
    """Return the dtype of the laid-out values.

    That of a cast float; else the plain values' own, which was only renamed.
    """
    return ACCEPTED_DTYPES[stamp.dtype][0] if stamp.source_dtype in FLOAT_DTYPES else stamp.source_dtype


def check_undo(role: Role, stamp: Stamp) -> None:
    """Raise a LayoutError where plain values cannot be restored."""
    if stamp.aiter_bytes:
        raise LayoutError(
            f"{role} cannot be inverted: AITER's bytes differ from layout {stamp.layout}; load the checkpoint again"
        )
    for step in stamp.lost:
        kind, why = step if step in ("cast", "default") else f"step {step}", _LOST[step]
        raise LayoutError(f"{role} cannot be inverted: the {kind} {why}; load the checkpoint again")


_LOST: Final[dict[Loss, str]] = {
    "cast": "to another dtype rounded numbers",
    "default": "put numbers there that the checkpoint does not have",
    "fnuz": "turned negative zeros into zeros (of a scale: saturated it)",
    "requantize_max": "gave shards of different scales one scale",
    "reduce_max": "kept the largest of different scales",
    "fold": "multiplied scales, which cannot be undone exactly",
    "fold_max": "multiplied scales, which cannot be undone exactly",
}


def _restore_plain_bytes(stamp: Stamp, item: int, data: torch.Tensor) -> torch.Tensor:
    """Return plain bytes in new storage.

    As large as the source was, but for a padded tail.
    """
    for step in (Geometry.of(stamp, item), Geometry.staged(stamp, item)):
        if step is not None:
            size = step.experts * step.halves
            rows, k = (step.rows, step.k) if step.padded_source else (step.live_rows, step.live_k)
            plain = torch.zeros(size * rows * k, dtype=torch.uint8, device=data.device)
            take_back(step.plan(step.experts), data, plain)
            data = plain
    return data

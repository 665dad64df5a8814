"""One tensor's part of an apply: everything checked and planned before a byte moves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from preshuffle.layouts.authority import Backend, Work, is_native, run
from preshuffle.layouts.dtypes import ACCEPTED, FLOATS, VALUES_PER_ELEMENT, as_bytes
from preshuffle.layouts.execute import lay_out, take_back
from preshuffle.layouts.in_place import SCRATCH_BYTES, InPlace
from preshuffle.layouts.single import layout_of
from preshuffle.layouts.stamp import Stamp, drop_stamp, put_stamp
from preshuffle.registry import CopyPlan, Decision, Layout, LayoutError, PlainView, TensorDecision, plan_copy
from preshuffle.registry.words import Role


@dataclass(frozen=True, slots=True)
class Geometry:
    """How plain rows of one tensor meet its laid-out bytes; everything in bytes and torch's own shapes."""

    layout: str
    experts: int
    halves: int
    live_rows: int
    live_k: int
    rows: int
    k: int
    alternating: bool
    padded_source: bool

    @staticmethod
    def of(stamp: Stamp, item: int) -> Geometry:
        """Derive the geometry from a stamp and the bytes of one element."""
        halves = 2 if stamp.order else 1
        return Geometry(
            layout=stamp.layout,
            experts=stamp.shape[0],
            halves=halves,
            live_rows=stamp.shape[1] // halves,
            live_k=_k(stamp.shape) * item,
            rows=stamp.physical_shape[1] // halves,
            k=_k(stamp.physical_shape) * item,
            alternating=halves == 2 and stamp.source_order == "GUGU",
            padded_source=stamp.padded_source,
        )

    def plan(self, experts: int) -> CopyPlan:
        """Plan the move of some experts that lie together."""
        return _plan(self, experts)

    def plan_for(self, layout: Layout, experts: int) -> CopyPlan:
        """Plan the same move into another layout."""
        return _plan(replace(self, layout=layout.id), experts)

    @property
    def expert_bytes(self) -> int:
        """Laid-out bytes of one expert."""
        return self.halves * self.rows * self.k

    @property
    def in_place(self) -> InPlace:
        """The move of a buffer that already has the physical size."""
        return InPlace(self.plan, self.experts, self.expert_bytes)


@lru_cache(maxsize=1024)
def _plan(geometry: Geometry, experts: int) -> CopyPlan:
    padded, live = (geometry.rows, geometry.k), (geometry.live_rows, geometry.live_k)
    rows, row = padded if geometry.padded_source else live
    half, step = (row, geometry.halves * row) if geometry.alternating else (rows * row, row)
    view = PlainView(experts, geometry.halves, *live, geometry.halves * rows * row, half, step)
    return plan_copy(layout_of(geometry.layout).bind(experts, geometry.halves * geometry.rows, geometry.k), view)


@dataclass(frozen=True, slots=True)
class Job:
    """What will be done to one tensor."""

    role: Role
    tensor: torch.Tensor
    geometry: Geometry
    stamp: Stamp
    target_dtype: torch.dtype
    physical_shape: tuple[int, ...]
    fill: int

    @property
    def in_place(self) -> bool:
        """Whether the tensor's own storage has the physical size, so that its address can stay."""
        if self.tensor.element_size() != self.target_dtype.itemsize or _casts(self.tensor, self.target_dtype):
            return False
        return self.tensor.numel() * self.tensor.element_size() == self.geometry.experts * self.geometry.expert_bytes

    def scratch_for(self, scratch_bytes: int) -> int:
        """Bytes that the job needs beside its source and result."""
        if not self.in_place:
            return 0
        return self.geometry.in_place.scratch_for(as_bytes(self.tensor.detach()), scratch_bytes)

    def work(self) -> Work:
        """The job as AITER would do it."""
        geometry = self.geometry
        shape = (geometry.experts, geometry.halves * geometry.rows, geometry.k)
        return Work(layout_of(geometry.layout), shape, geometry.plan_for, self.target_dtype, self.fill)

    def run(self, scratch: torch.Tensor, backend: Backend) -> torch.Tensor:
        """Move the bytes; the result is what the kernel should get (without tag or stamp)."""
        if not is_native(backend, work := self.work(), self._plain()):
            return self._run_aiter(work)
        if self.in_place:
            self.geometry.in_place.lay_out(as_bytes(self.tensor.detach()), scratch, self.fill)
            return self.tensor if self.tensor.dtype == self.target_dtype else self.tensor.view(self.target_dtype)
        result = torch.empty(self.physical_shape, dtype=self.target_dtype, device=self.tensor.device)
        lay_out(self.geometry.plan(self.geometry.experts), self._plain(), as_bytes(result), self.fill)
        return result

    def _plain(self) -> torch.Tensor:
        """The plain bytes, values cast where the kernel wants another dtype."""
        casts = _casts(self.tensor, self.target_dtype)
        return as_bytes((self.tensor.to(self.target_dtype) if casts else self.tensor).detach())

    def _run_aiter(self, work: Work) -> torch.Tensor:
        if self.in_place:
            result = self.tensor if self.tensor.dtype == self.target_dtype else self.tensor.view(self.target_dtype)
        else:
            result = torch.empty(self.physical_shape, dtype=self.target_dtype, device=self.tensor.device)
        run(work, self._plain(), as_bytes(result.detach()))
        return result


def prepare(role: Role, tensor: torch.Tensor, decision: Decision, last_rank: bool) -> Job:
    """Check one tensor against a decision and plan its move.

    Raises:
        LayoutError: shape, dtype, device or strides are not what the decision says; names what would be.
    """
    decided = decision.tensors[role]
    source_shape = tuple(tensor.shape)
    if tensor.dim() == 4 and role.endswith("_weight") and tensor.is_contiguous():
        tensor = tensor.flatten(2)  # a checkpoint's blocks: [E, rows, groups, bytes of a group]
    if tensor.device.type == "meta":
        raise LayoutError(f"{role} is on the meta device: it has no bytes")
    dtype = _check_dtype(role, tensor, decided)
    if not tensor.is_contiguous():
        raise LayoutError(f"{role} of shape {tuple(tensor.shape)} is not contiguous (strides {tensor.stride()})")
    live, padded_source = _check_shape(role, tensor, decided, last_rank)
    physical = torch_shape(decided.physical_shape, decided)
    stamp = Stamp(
        recipe=decision.recipe,
        decision_digest=decision.decision_digest,
        role=role,
        layout=decided.layout,
        shape=live,
        source_shape=source_shape,
        physical_shape=physical,
        pad=(decided.pad.rows, decided.pad.k),
        dtype=decided.dtype,
        source_dtype=tensor.dtype,
        source_order=decided.source_order,
        order=decided.order,
        fill=decided.fill,
        padded_source=padded_source,
        is_shuffled=decided.is_shuffled,
    )
    geometry = Geometry.of(stamp, dtype.itemsize)
    geometry.plan(1)
    return Job(role, tensor, geometry, stamp, dtype, physical, decided.fill)


def undo(tensor: torch.Tensor, stamp: Stamp) -> torch.Tensor:
    """Return the plain tensor that a stamped one was made from, pads stripped, rows in the checkpoint's order.

    A tensor that had the physical size before keeps its storage, and loses its stamp; it is broken while it is moved.
    """
    geometry = Geometry.of(stamp, tensor.element_size())
    data = as_bytes(tensor.detach())
    if stamp.padded_source and stamp.source_dtype.itemsize == tensor.element_size():
        size = geometry.in_place.chunk(SCRATCH_BYTES) * geometry.expert_bytes
        scratch = torch.empty(size, dtype=torch.uint8, device=tensor.device)
        put_stamp(tensor, replace(stamp, state="broken"))
        geometry.in_place.take_back(data, scratch)
        drop_stamp(tensor)
        if tensor.dtype == stamp.source_dtype and tuple(tensor.shape) == stamp.source_shape:
            return tensor
        return tensor.detach().view(stamp.source_dtype).view(stamp.source_shape)
    shape = stamp.physical_shape if stamp.padded_source else stamp.shape
    plain = torch.empty(shape, dtype=tensor.dtype, device=tensor.device)
    as_bytes(plain).zero_()
    take_back(geometry.plan(geometry.experts), data, as_bytes(plain))
    plain = plain.to(stamp.source_dtype) if stamp.source_dtype in FLOATS else plain.view(stamp.source_dtype)
    return plain.view(stamp.source_shape)


def torch_shape(shape: tuple[int, ...], decided: TensorDecision) -> tuple[int, ...]:
    """Turn a shape in values into torch's own (an fp4x2 element holds two values)."""
    per_element = VALUES_PER_ELEMENT.get(decided.dtype, 1)
    return (*shape[:2], shape[2] // per_element) if len(shape) == 3 else shape


def _k(shape: tuple[int, ...]) -> int:
    return shape[2] if len(shape) == 3 else 1


def _casts(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether values (not only their name) change."""
    return tensor.dtype in FLOATS and tensor.dtype != dtype


def _check_dtype(role: Role, tensor: torch.Tensor, decided: TensorDecision) -> torch.dtype:
    valid = FLOATS if role.endswith("_bias") else ACCEPTED[decided.dtype]
    if tensor.dtype not in valid:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in valid)
        raise LayoutError(f"{role} is {str(tensor.dtype).removeprefix('torch.')}; valid: {names}")
    # a scale keeps the one-byte dtype that its engine gave it; kernels take either
    return tensor.dtype if decided.dtype == "e8m0" else ACCEPTED[decided.dtype][0]


def _check_shape(
    role: Role, tensor: torch.Tensor, decided: TensorDecision, last_rank: bool
) -> tuple[tuple[int, ...], bool]:
    """Return the live shape, and whether the tensor already has the physical size."""
    found = tuple(tensor.shape)
    logical = torch_shape(decided.logical_shape, decided)
    short = torch_shape(decided.short_shape or decided.logical_shape, decided)
    physical = torch_shape(decided.physical_shape, decided)
    live = short if last_rank else logical
    if found in (live, short):
        return found, found == physical
    if found == physical:
        return live, True
    valid = {"plain": live, "plain on the last rank": short, "padded": physical}
    listed = ", ".join(f"{shape} ({what})" for what, shape in valid.items() if what == "plain" or shape != live)
    raise LayoutError(f"{role} has shape {found}; valid: {listed}")

"""The life of laid-out tensors: weights loaded again, tags put back, one decision exchanged for another."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final

import torch

from preshuffle.layouts.accept import torch_shape
from preshuffle.layouts.apply import TAG, apply, describe, inverse
from preshuffle.layouts.authority import Backend
from preshuffle.layouts.dtypes import as_bytes
from preshuffle.layouts.geometry import Geometry
from preshuffle.layouts.in_place import SCRATCH_BYTES, InPlace
from preshuffle.layouts.single import layout_of
from preshuffle.layouts.stamp import Stamp, put_stamp, put_stamps, stamp_of
from preshuffle.layouts.target import RoleTensors, Target, folds
from preshuffle.registry import Applied, CopyPlan, Decision, LayoutError
from preshuffle.registry.plan import plan_relayout
from preshuffle.registry.words import Role, Step

_SHRINKS: Final[tuple[Step, ...]] = ("requantize_max", "reduce_max", "pack_int4")
"""Steps behind which fewer bytes lie than the plain values took (of a weight only the last)."""


def begin_reload(target: Target) -> None:
    """Say that plain bytes are about to be written over laid-out ones, in the same storage.

    Until ``finish_reload`` the tensors are not what their tag says: AITER's tag is taken off. A tensor that an
    interrupted move left broken may be reloaded, too.

    Raises:
        LayoutError: a tensor has no stamp: nothing was laid out.
    """
    tensors = RoleTensors(target)
    stamps = {role: stamp_of(tensors[role]) for role in tensors.names}
    for role, stamp in stamps.items():
        if stamp is None:
            raise LayoutError(f"{role} has no stamp: there is nothing laid out to reload")
        step = next((step for step in _SHRINKS if step in stamp.steps), None)
        if step is not None and (role.endswith("_scale") or step == "pack_int4"):
            raise LayoutError(f"{role} cannot be reloaded in its storage: its plain values are more bytes ({step})")
    put_stamps(
        (tensors[role], replace(stamp, state="reloading")) for role, stamp in stamps.items() if stamp is not None
    )
    for role, stamp in stamps.items():
        if hasattr(tensors[role], TAG):
            delattr(tensors[role], TAG)
        if stamp is not None and "fnuz" in stamp.steps and tensors[role].dtype == torch.float8_e4m3fnuz:
            tensors[role] = tensors[role].detach().view(torch.float8_e4m3fn)  # a copy into it would convert by value


def finish_reload(
    target: Target,
    decision: Decision,
    *,
    backend: Backend = "auto",
    last_rank: bool = False,
    scratch_bytes: int = SCRATCH_BYTES,
) -> Applied:
    """Lay out what was loaded since ``begin_reload``: same storage, same address, same strides.

    Args:
        target: what ``begin_reload`` was called with; it holds plain rows in the physical shape (see ``apply``).
        decision: what to apply.
        backend: as for ``apply``.
        last_rank: as for ``apply``.
        scratch_bytes: as for ``apply``.

    Raises:
        LayoutError: no reload was begun for a tensor, or a precondition of ``apply`` does not hold.
    """
    tensors = RoleTensors(target)
    tensors.check_roles(decision.tensors, folds(decision))
    for role in tensors.present(decision.tensors):
        stamp = stamp_of(tensors[role])
        if stamp is None or stamp.state != "reloading":
            raise LayoutError(f"{role}: no reload was begun")
    return apply(target, decision, backend=backend, last_rank=last_rank, scratch_bytes=scratch_bytes)


def retag(target: Target) -> tuple[Role, ...]:
    """Put AITER's tag back on every object whose stamp asks for it; return the roles that lacked it.

    The tag is a Python attribute, lost by ``nn.Parameter(t)``, ``.data`` and ``.view(dtype)``; the stamp is not.
    """
    tensors = RoleTensors(target)
    lacked: list[Role] = []
    for role in tensors.names:
        tensor = tensors[role]
        stamp = stamp_of(tensor)
        if stamp is not None and stamp.is_shuffled and stamp.state == "applied" and not getattr(tensor, TAG, False):
            setattr(tensor, TAG, True)
            lacked.append(role)
    return tuple(lacked)


def relayout(
    target: Target, decision: Decision, *, backend: Backend = "auto", scratch_bytes: int = SCRATCH_BYTES
) -> Applied:
    """Exchange the decision that a target was laid out by for another one.

    Tensors of the same physical shape go from one layout to the other in one pass, in their own storage; others by way
    of their plain bytes.

    Args:
        target: laid out, stamped tensors.
        decision: the new decision, of the same model and rank.
        backend: as for ``apply``, where plain bytes are laid out.
        scratch_bytes: as for ``apply``.

    Raises:
        LayoutError: a tensor is not laid out, or was laid out from other rows. Nothing is changed then.
    """
    tensors = RoleTensors(target)
    tensors.check_roles(decision.tensors, folds(decision))
    stamps: dict[Role, Stamp] = {}
    for role in tensors.present(decision.tensors):
        decided = decision.tensors[role]
        stamp = stamp_of(tensors[role])
        if stamp is None or stamp.state != "applied":
            raise LayoutError(f"{role} is not laid out: apply the decision instead")
        if (stamp.source_order, stamp.dtype) != (decided.source_order, decided.dtype):
            raise LayoutError(
                f"{role} was laid out from {stamp.source_order} rows as {stamp.dtype}; the decision differs"
            )
        stamps[role] = stamp
    direct = {role: _directly(tensors[role], stamp, decision, role) for role, stamp in stamps.items()}
    if any(move is None for move in direct.values()):
        inverse(target)
        return apply(target, decision, backend=backend, scratch_bytes=scratch_bytes)
    for role, move in direct.items():
        tensor = tensors[role]
        new = restamped(stamps[role], decision)
        if move is not None and new.layout != stamps[role].layout:
            data = as_bytes(tensor.detach())
            scratch = torch.empty(move.scratch_for(data, scratch_bytes), dtype=torch.uint8, device=tensor.device)
            put_stamp(tensor, replace(new, state="broken"))
            move.lay_out(data, scratch, new.fill)
        put_stamp(tensor, new)
    return describe(target, decision)


def restamped(stamp: Stamp, decision: Decision) -> Stamp:
    """Return a stamp as a new decision of the same physical shape leaves it."""
    decided = decision.tensors[stamp.role]
    return replace(
        stamp, recipe=decision.recipe, decision_digest=decision.decision_digest, layout=decided.layout,
        order=decided.order, is_shuffled=decided.is_shuffled,
    )  # fmt: skip


def _directly(tensor: torch.Tensor, stamp: Stamp, decision: Decision, role: Role) -> InPlace | None:
    """Return the one-pass move between two layouts of the same physical bytes, or None where there is none."""
    decided = decision.tensors[role]
    physical = torch_shape(decided.physical_shape, decided, tensor.dtype)
    same = (physical, decided.fill, decided.order, decided.is_shuffled, decided.steps)
    if same != (stamp.physical_shape, stamp.fill, stamp.order, stamp.is_shuffled, stamp.steps):
        return None
    if stamp.flat_rows is not None or "pack_int4" in stamp.steps or not tensor.is_contiguous():
        return None
    geometry, target = Geometry.of(stamp, tensor.element_size()), layout_of(decided.layout)

    @lru_cache(maxsize=4)
    def plan(experts: int) -> CopyPlan:
        return plan_relayout(geometry.bound(experts), geometry.bound(experts, target))

    try:
        plan(1)
    except LayoutError:
        return None
    return InPlace(plan, geometry.experts, geometry.expert_bytes)

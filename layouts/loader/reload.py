"""Lifecycle of laid-out tensors: reload, retag and relayout."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import Final

import torch

from preshuffle.layouts.loader.aiter_authority import Backend
from preshuffle.layouts.loader.apply import apply, check_backend_and_scratch, inverse
from preshuffle.layouts.loader.findings import check_findings
from preshuffle.layouts.loader.geometry import Geometry
from preshuffle.layouts.loader.input_checks import passed_shape, torch_shape
from preshuffle.layouts.loader.job import check_fits, is_last_rank
from preshuffle.layouts.loader.pads import Pads, check_pads_argument, pad_sums
from preshuffle.layouts.loader.result import AITER_TAG, ApplyResult, describe
from preshuffle.layouts.loader.single import layout_from
from preshuffle.layouts.loader.target import RoleTensors, Target, folded_roles
from preshuffle.layouts.moves import SCRATCH_BYTES, InPlace
from preshuffle.layouts.stamps import (
    Stamp,
    check_known,
    check_role,
    check_writable,
    exclusive,
    put_stamp,
    put_stamps,
    stamp_of,
    verified_stamp_of,
    watch,
)
from preshuffle.layouts.tensors import as_bytes, untraced
from preshuffle.registry import CopyPlan, Decision, LayoutError
from preshuffle.registry.algebra.copy_plan import plan_relayout
from preshuffle.registry.base.words import Role, Step
from preshuffle.registry.values.finding import FindingCode

_SHRINKS: Final[tuple[Step, ...]] = ("requantize_max", "reduce_max", "pack_int4")
"""Steps behind which fewer bytes lie than the plain values took (of a weight only the last)."""


@untraced
def begin_reload(target: Target) -> None:
    """Mark laid-out tensors as about to be overwritten.

    Until ``finish_reload`` the tensors are not what their tag says: AITER's tag is taken off. A layer that an
    interrupted move left may be reloaded, too: tensors that are broken, beside others that are plain again or still.

    Raises:
        LayoutError: no tensor has a stamp (nothing was laid out), or one has AITER's tag and none.
    """
    tensors = RoleTensors(target)
    with exclusive(target, tensors.values):
        _begin(tensors)


def _begin(tensors: RoleTensors) -> None:
    found = {role: stamp_of(tensors[role]) for role in tensors.names}
    stamps = {role: stamp for role, stamp in found.items() if stamp is not None}
    for role, stamp in found.items():
        if stamp is None and (not stamps or getattr(tensors[role], AITER_TAG, False)):
            raise LayoutError(f"{role} has no stamp: there is nothing laid out to reload")
    if not found:
        raise LayoutError("the target has no tensor of a layer: there is nothing to reload")
    for role, stamp in stamps.items():
        _check_reloadable(role, tensors[role], stamp)
    begun = {
        role: replace(stamp, state="reloading", pad_sums=pad_sums(role, tensors[role], stamp))
        for role, stamp in stamps.items()
    }
    put_stamps((tensors[role], stamp) for role, stamp in begun.items())
    for role, stamp in stamps.items():
        if hasattr(tensors[role], AITER_TAG):
            delattr(tensors[role], AITER_TAG)
        if stamp.passed_shape is not None:
            tensors[role] = tensors[role].detach().view(stamp.physical_shape)  # as loaders know it
        if "fnuz" in stamp.steps and tensors[role].dtype == torch.float8_e4m3fnuz:
            tensors[role] = tensors[role].detach().view(torch.float8_e4m3fn)  # a copy into it would convert by value


def _check_reloadable(role: Role, tensor: torch.Tensor, stamp: Stamp) -> None:
    if stamp.passed_shape is not None and tensor.numel() != prod(stamp.physical_shape):
        size = "x".join(map(str, stamp.physical_shape))
        raise LayoutError(f"{role} has {tensor.numel()} values; its stamp is of a tensor of {size}")
    step = next((step for step in _SHRINKS if step in stamp.steps), None)
    if step is not None and (role.endswith("_scale") or step == "pack_int4"):
        raise LayoutError(f"{role} cannot be reloaded in its storage: its plain values are more bytes ({step})")


@untraced
def finish_reload(
    target: Target,
    decision: Decision,
    *,
    backend: Backend = "auto",
    last_rank: bool = False,
    pads: Pads = "refuse",
    allow: Collection[FindingCode] = (),
    scratch_bytes: int = SCRATCH_BYTES,
) -> ApplyResult:
    """Lay out what was loaded since ``begin_reload``.

    Storage, address and strides stay.

    Args:
        target: what ``begin_reload`` was called with; it holds plain rows in the physical shape (see ``apply``).
        decision: what to apply.
        backend: as for ``apply``.
        last_rank: as for ``apply``.
        pads: as for ``apply``; pads that nothing has written since ``begin_reload`` are overwritten.
        allow: as for ``apply``.
        scratch_bytes: as for ``apply``.

    Raises:
        LayoutError: no reload was begun for the layer, or a precondition of ``apply`` does not hold.
    """
    check_pads_argument(pads)
    check_findings(decision, allow)
    tensors = RoleTensors(target)
    with exclusive(target, tensors.values):
        tensors.check_roles(decision.tensors, folded_roles(decision))
        stamps = {role: stamp_of(tensors[role]) for role in tensors.present(decision.tensors)}
        begun = any(stamp is not None and stamp.state == "reloading" for stamp in stamps.values())
        for role, stamp in stamps.items():
            if not begun or (stamp is not None and stamp.state != "reloading"):
                raise LayoutError(f"{role}: no reload was begun")
        return apply(
            target, decision, backend=backend, last_rank=last_rank, pads=pads, allow=allow, scratch_bytes=scratch_bytes
        )


@untraced
def relayout(
    target: Target,
    decision: Decision,
    *,
    backend: Backend = "auto",
    allow: Collection[FindingCode] = (),
    scratch_bytes: int = SCRATCH_BYTES,
) -> ApplyResult:
    """Convert a target from one decision to another.

    Tensors of the same physical shape go from one layout to the other in one pass, in their own storage; others by way
    of their plain bytes.

    Args:
        target: laid out, stamped tensors.
        decision: the new decision, of the same model and rank.
        backend: as for ``apply``, where plain bytes are laid out.
        allow: as for ``apply``.
        scratch_bytes: as for ``apply``.

    Raises:
        LayoutError: a tensor is not laid out, was laid out from other rows, or its plain form is not what the decision
            takes; or the decision carries an error that is not allowed. Nothing is changed then.
    """
    check_backend_and_scratch(decision, backend, scratch_bytes)
    check_findings(decision, allow)
    tensors = RoleTensors(target)
    with exclusive(target, tensors.values):
        return _relayout(tensors, decision, backend, allow, scratch_bytes)


def _relayout(
    tensors: RoleTensors,
    decision: Decision,
    backend: Backend,
    allow: Collection[FindingCode],
    scratch_bytes: int,
) -> ApplyResult:
    target = tensors.target
    stamps = _stamps_to_convert(tensors, decision)
    last_rank = any(is_last_rank(role, stamp, decision) for role, stamp in stamps.items())
    for role, stamp in stamps.items():
        check_fits(role, stamp, decision, last_rank)
    direct = {role: _one_pass_move(tensors[role], stamp, decision, role) for role, stamp in stamps.items()}
    if any(move is None for move in direct.values()):
        inverse(target)
        return apply(target, decision, backend=backend, last_rank=last_rank, allow=allow, scratch_bytes=scratch_bytes)
    data = {role: as_bytes(tensors[role].detach()) for role in direct}
    moves = {
        role: move
        for role, move in direct.items()
        if move is not None and layout_from(decision.tensors[role]) != layout_from(stamps[role])
    }
    for role in moves:
        check_writable(role, tensors[role])
    needed = {role: move.scratch_for(data[role], scratch_bytes) for role, move in moves.items()}
    device = next(iter(data.values())).device
    scratch = torch.empty(max(needed.values(), default=0), dtype=torch.uint8, device=device)
    for role, stamp in stamps.items():
        new = restamped(role, stamp, decision)
        if role in moves:
            put_stamp(tensors[role], replace(new, state="broken"))
            moves[role].lay_out(data[role], scratch[: needed[role]], new.fill)
        put_stamp(tensors[role], new)
        if tuple(tensors[role].shape) != new.tensor_shape:
            tensors[role] = tensors[role].detach().view(new.tensor_shape)
        watch(tensors[role])
    return describe(target, decision)


def _stamps_to_convert(tensors: RoleTensors, decision: Decision) -> dict[Role, Stamp]:
    tensors.check_roles(decision.tensors, folded_roles(decision))
    stamps: dict[Role, Stamp] = {}
    for role in tensors.present(decision.tensors):
        decided = decision.tensors[role]
        stamp = verified_stamp_of(tensors[role])
        if stamp is not None:
            check_known(role, tensors[role], stamp)
        if stamp is None or stamp.state != "applied":
            raise LayoutError(f"{role} is not laid out: apply the decision instead")
        check_role(role, stamp)
        if (stamp.source_order, stamp.dtype) != (decided.source_order, decided.dtype):
            raise LayoutError(
                f"{role} was laid out from {stamp.source_order} rows as {stamp.dtype}; the decision differs"
            )
        stamps[role] = stamp
    return stamps


def restamped(role: Role, stamp: Stamp, decision: Decision) -> Stamp:
    """Return a stamp changed to a new decision.

    The physical shape is the same.
    """
    decided = decision.tensors[role]
    return replace(
        stamp, recipe=decision.recipe, decision_digest=decision.decision_digest, layout=decided.layout,
        layout_line=decided.layout_line, order=decided.order, is_shuffled=decided.is_shuffled,
        passed_shape=passed_shape(decided),
    )  # fmt: skip


def _one_pass_move(tensor: torch.Tensor, stamp: Stamp, decision: Decision, role: Role) -> InPlace | None:
    """Return the one-pass move between two layouts, or None.

    It needs the same physical bytes on both sides.
    """
    decided = decision.tensors[role]
    physical = torch_shape(decided.physical_shape, decided, tensor.dtype)
    tail = (decided.tail.first_k, decided.tail.fill) if decided.tail else None
    same = (physical, decided.fill, tail, decided.order, decided.is_shuffled, decided.steps)
    if same != (stamp.physical_shape, stamp.fill, stamp.tail, stamp.order, stamp.is_shuffled, stamp.steps):
        return None
    if stamp.aiter_bytes or stamp.flat_rows is not None or "pack_int4" in stamp.steps or not tensor.is_contiguous():
        return None
    geometry, target = Geometry.of(stamp, tensor.element_size()), layout_from(decided)

    @lru_cache(maxsize=4)
    def plan(experts: int) -> CopyPlan:
        return plan_relayout(geometry.bound(experts), geometry.bound(experts, target))

    try:
        plan(1)
    except LayoutError:
        return None
    return InPlace(plan, geometry.experts, geometry.expert_bytes)

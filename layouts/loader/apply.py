"""Apply a decision to a layer's tensors, and invert it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Literal

import torch

from preshuffle.layouts.loader.aiter_authority import Backend, check_function
from preshuffle.layouts.loader.findings import check_findings
from preshuffle.layouts.loader.job import Job, check_undo, keeps_storage, prepare_job, undo_layout
from preshuffle.layouts.loader.pads import Pads, check_pads, check_pads_argument
from preshuffle.layouts.loader.result import AITER_TAG, ApplyResult, describe, describe_stamped, retag
from preshuffle.layouts.loader.single import check_backend, layout_from
from preshuffle.layouts.loader.target import RoleTensors, Target, folded_roles
from preshuffle.layouts.moves import SCRATCH_BYTES
from preshuffle.layouts.stamps import (
    Stamp,
    any_overlap,
    check_known,
    check_role,
    check_writable,
    exclusive,
    extents_overlap,
    find_mappings,
    forget_copies,
    hand_over_stamps,
    mark_unmapped,
    memory_extents_of,
    put_stamps,
    record_location,
    stamp_of,
    verified_stamp_of,
    verified_stamps,
    watch,
)
from preshuffle.layouts.tensors import untraced
from preshuffle.registry import Decision, LayoutError
from preshuffle.registry.base.words import ROLES, Role
from preshuffle.registry.values.finding import FindingCode


@untraced
def apply(
    target: Target,
    decision: Decision,
    *,
    backend: Backend = "auto",
    again: Literal["refuse", "skip"] = "refuse",
    last_rank: bool = False,
    pads: Pads = "refuse",
    allow: Collection[FindingCode] = (),
    scratch_bytes: int = SCRATCH_BYTES,
) -> ApplyResult:
    """Lay a layer's plain tensors out as a decision says.

    Every precondition is checked before a byte moves. Tensors that already have the physical size are laid out in their
    own storage, with at most 64 MiB (or one expert) beside them; others are replaced in the target. Weights get AITER's
    tag ``is_shuffled`` on the object that stands in the target afterwards, and all get a stamp.

    Args:
        target: a module with the role attributes, or a dict of tensors; each ``[E, rows, K]`` (a bias ``[E, rows]``) of
            one rank, rows in the checkpoint's order, in the plain or in the physical shape. Input scales that the
            decision does not take may be there, and stay. A scale that has a ``default`` may be left out: the scale of
            the whole tensor then stands under its name, and is replaced. In a buffer of the physical
            shape GUGU rows lie at its beginning; of GGUU rows each half begins at its half of the buffer.
        decision: what ``Registry.resolve`` decided.
        backend: as for ``apply_layout``; AITER's functions see layouts only, casts and plain tensors are always ours.
        again: what to do where the tensors are laid out already: ``refuse``, or ``skip`` if by the same decision.
        last_rank: the tensors are those of the last tensor-parallel rank, which may have less (only needed where they
            are in the physical shape; a plain shape tells by itself).
        pads: what to do where a weight or a bias in the physical shape holds something in its pad: ``refuse``, because
            a loader put it there and its shard is not the decision's, or ``overwrite`` where the pads are known to be
            uninitialised memory. Pads of scales are never read: engines fill them in several ways.
        allow: codes of error findings with which the decision is applied all the same.
        scratch_bytes: what in-place moves may hold beside the tensors, 64 MiB by default, at least one expert.

    Returns:
        What was applied, ready to be reported in an ``Observation``; its ``findings`` say where AITER's own function
        gave other bytes than the book's layout (with ``backend="auto"``; AITER's bytes are used then).

    Raises:
        LayoutError: a tensor is missing, too much, of another shape, dtype or device, strided, or laid out already;
            a pad holds live values; or the decision carries an error that is not allowed.
    """
    check_backend_and_scratch(decision, backend, scratch_bytes)
    check_pads_argument(pads)
    check_findings(decision, allow)
    if again not in ("refuse", "skip"):
        raise LayoutError(f"again = {again!r}; valid: refuse, skip")
    tensors = RoleTensors(target)
    with exclusive(target, tensors.values):
        tensors.make_defaults(decision)
        tensors.check_roles(decision.tensors, folded_roles(decision))
        if _already_applied(tensors, decision, again):
            retag(target)
            return describe(target, decision)
        return _apply(tensors, decision, backend, last_rank, pads, scratch_bytes)


def _apply(
    tensors: RoleTensors, decision: Decision, backend: Backend, last_rank: bool, pads: Pads, scratch_bytes: int
) -> ApplyResult:
    jobs = [prepare_job(role, tensors, decision, last_rank) for role in tensors.present(decision.tensors)]
    _check_compatible(jobs)
    if pads == "refuse":
        check_pads(jobs)
    needed = {job.role: job.scratch_for(scratch_bytes) for job in jobs}
    scratch = torch.empty(max(needed.values()), dtype=torch.uint8, device=jobs[0].tensor.device)
    # those that get new storage come first: until they are done, nothing of the target has changed
    results: dict[Role, tuple[torch.Tensor, Stamp]] = {}
    none = scratch[:0]
    for job in jobs:
        if not job.in_place:
            results[job.role] = job.run(none, backend)
            mark_unmapped(results[job.role][0])
    results |= _in_place([job for job in jobs if job.in_place], needed, scratch, backend)
    put_stamps(results[job.role] for job in jobs)
    for job in jobs:
        tensors[job.role], _ = results[job.role]
        if job.stamp.is_shuffled:
            setattr(tensors[job.role], AITER_TAG, True)
        if tensors[job.role] is not results[job.role][0]:  # a new parameter: what was stamped is a witness already
            watch(tensors[job.role])
        hand_over_stamps(tensors[job.role])
    return describe_stamped(tensors, decision, {role: stamp for role, (_, stamp) in results.items()})


def check_backend_and_scratch(decision: Decision, backend: Backend, scratch_bytes: int) -> None:
    """Validate the backend and the scratch size.

    Raises:
        LayoutError: an unknown backend, one that has not all that the decision needs, or scratch that is no size.
    """
    check_backend(backend)
    if isinstance(scratch_bytes, bool) or not isinstance(scratch_bytes, int) or scratch_bytes < 0:
        raise LayoutError(f"scratch_bytes = {scratch_bytes!r}; valid: a number of bytes")
    for layout in {layout_from(decided) for decided in decision.tensors.values()} if backend == "aiter" else ():
        check_function(layout)


def _in_place(
    jobs: list[Job], needed: Mapping[Role, int], scratch: torch.Tensor, backend: Backend
) -> dict[Role, tuple[torch.Tensor, Stamp]]:
    """Run jobs in their tensors' own storage.

    Where one fails it is broken, and those behind it keep what they were.
    """
    before = [stamp_of(job.tensor) for job in jobs]
    results: dict[Role, tuple[torch.Tensor, Stamp]] = {}
    done = 0
    try:
        put_stamps((job.tensor, replace(job.stamp, state="broken")) for job in jobs)
        for job in jobs:
            results[job.role] = job.run(scratch[: needed[job.role]], backend)
            done += 1
    except BaseException as error:
        refused = isinstance(error, LayoutError) and not jobs[done].values.changes  # before a byte of it was written
        rest = slice(done + (not refused), None)
        put_stamps((job.tensor, stamp) for job, stamp in zip(jobs[rest], before[rest], strict=True))
        raise
    return results


@untraced
def inverse(target: Target, decision: Decision | None = None) -> None:
    """Restore the checkpoint's bytes from laid-out tensors.

    Pads are stripped; rows and dtypes are as they came.

    Args:
        target: what ``apply`` worked on.
        decision: if given, the tensors must have been laid out by it.

    Raises:
        LayoutError: a tensor has no stamp (its layout is unknown), or another decision's, or a step of its
            recipe has lost something. Nothing is changed then.
    """
    tensors = RoleTensors(target)
    with exclusive(target, tensors.values):
        _inverse(tensors, _stamps_to_undo(tensors, decision))


def _inverse(tensors: RoleTensors, stamps: dict[Role, Stamp]) -> None:
    # those that get new storage come first: until they are done, nothing of the target has changed
    first = {
        role: undo_layout(role, tensors[role], stamp)
        for role, stamp in stamps.items()
        if not keeps_storage(role, stamp)
    }
    for role, stamp in stamps.items():
        plain = first[role] if role in first else undo_layout(role, tensors[role], stamp)
        forget_copies(tensors[role])
        if hasattr(plain, AITER_TAG):
            delattr(plain, AITER_TAG)
        tensors[role] = plain
        if hasattr(tensors[role], AITER_TAG):
            delattr(tensors[role], AITER_TAG)


def _stamps_to_undo(tensors: RoleTensors, decision: Decision | None) -> dict[Role, Stamp]:
    stamps: dict[Role, Stamp] = {}
    if decision:
        tensors.check_roles(decision.tensors, folded_roles(decision))
    for role in tensors.present(decision.tensors if decision else ROLES):
        stamp = verified_stamp_of(tensors[role])
        if stamp is None and decision is None and role.endswith("_input_scale"):
            continue  # the layer keeps it, and the kernel does not get it
        if stamp is None:
            raise LayoutError(f"{role} has no stamp: its layout is unknown")
        check_known(role, tensors[role], stamp)
        if stamp.state != "applied":
            place = record_location(tensors[role])
            raise LayoutError(f"{role} is {stamp.state}, not laid out: there is nothing to invert{place}")
        check_role(role, stamp)
        if decision and stamp.decision_digest != decision.decision_digest:
            raise LayoutError(f"{role} was laid out by another decision ({stamp.recipe}, {stamp.decision_digest})")
        if tuple(tensors[role].shape) not in (stamp.tensor_shape, stamp.physical_shape):
            shape = tuple(tensors[role].shape)
            raise LayoutError(f"{role} of shape {shape} is a part of what was laid out; valid: {stamp.tensor_shape}")
        check_undo(role, stamp)
        if keeps_storage(role, stamp):
            check_writable(role, tensors[role])
        stamps[role] = stamp
    if not stamps:
        raise LayoutError("the target has no tensor of a layer: there is nothing to invert")
    return stamps


def _already_applied(tensors: RoleTensors, decision: Decision, again: str) -> bool:
    find_mappings(tensors[role] for role in tensors.present(decision.tensors))
    overlapping = {role: verified_stamps(tensors[role]) for role in tensors.present(decision.tensors)}
    stamps = {role: stamp for role, (stamp, _) in overlapping.items()}
    laid = {role: stamp for role, stamp in stamps.items() if stamp is not None and stamp.state != "reloading"}
    for role, stamp in laid.items():
        check_known(role, tensors[role], stamp)
        if stamp.state == "broken":
            place = record_location(tensors[role])
            raise LayoutError(
                f"{role} was left partly laid out by an interrupted move{place}: begin_reload, and load it again"
            )
    if laid and again == "skip" and len(laid) == len(stamps):
        digest = decision.decision_digest
        if all((stamp.role, stamp.decision_digest) == (role, digest) for role, stamp in laid.items()):
            return True
    for role, stamp in laid.items():
        what = f"{stamp.layout}, recipe {stamp.recipe}"
        raise LayoutError(f"{role} is laid out already ({what}){record_location(tensors[role])}; invert it first")
    for role, found in stamps.items():
        if found is None and getattr(tensors[role], AITER_TAG, False):
            raise LayoutError(f"{role} has {AITER_TAG} but no stamp: another loader laid it out")
        for under in overlapping[role][1] if found is None else ():
            check_known(f"a part of {role}", tensors[role], under)
            if under.state != "reloading":
                raise LayoutError(f"a part of {role} is laid out already ({under.layout}, as {under.role or 'a part'})")
    return False


def _check_compatible(jobs: list[Job]) -> None:
    devices = {job.tensor.device for job in jobs}
    if len(devices) > 1:
        where = ", ".join(f"{job.role} on {job.tensor.device}" for job in jobs)
        raise LayoutError(f"the tensors are on different devices: {where}")
    _check_same_rank(jobs)
    places = [(job.role, memory_extents_of(job.tensor)) for job in jobs]
    for (one, here), (other, there) in combinations(places, 2) if any_overlap(place for _, place in places) else ():
        if extents_overlap(here, there):
            raise LayoutError(f"{one} and {other} share bytes")


def _check_same_rank(jobs: list[Job]) -> None:
    """Raise a LayoutError where tensors belong to different ranks.

    All tensors of which a last rank has less are the last rank's, or none is: else weights and scales disagree.
    """
    short: dict[bool, list[str]] = {True: [], False: []}
    for job in jobs:
        if job.last is not None:
            short[job.last].append(f"{job.role} {job.stamp.shape}")
    if short[True] and short[False]:
        last, full = ", ".join(short[True]), ", ".join(short[False])
        raise LayoutError(f"the tensors are of different ranks: {last} of the last one, {full} of another")

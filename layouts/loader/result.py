"""Result of ``apply``: an ``Applied`` built from stamps and tags."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from preshuffle.layouts.loader.target import RoleTensors, Target
from preshuffle.layouts.stamps import Stamp, hand_over_stamps, stamp_of
from preshuffle.layouts.tensors import untraced
from preshuffle.registry import Applied, Decision, Finding, TensorObservation
from preshuffle.registry.base.frozen import FrozenDict, unvalidated
from preshuffle.registry.base.words import Role
from preshuffle.registry.values.decision import CallDecision

AITER_TAG: Final = "is_shuffled"
"""The attribute by which AITER tells laid-out weights from plain ones."""
_UNSEEN: Final[dict[str, Any]] = {"address_changed": None, "rows_loaded": None, "slots_loaded": None}
_SEEN: Final = set(TensorObservation.model_fields) - set(_UNSEEN)


class ApplyResult(Applied):
    """What was applied, and where AITER's functions gave other bytes.

    Fields of the call stay unknown: laying bytes out calls no kernel. ``observed_call`` tells them from the arguments
    of a call, ``decided_call`` is what must be passed.

    Attributes:
        decided_call: the call that the bytes are for, as decided.
        findings: one ``layout_mismatch`` for each tensor that holds AITER's bytes because they differ from those of the
            book's layout; its observed ``layout`` is None then. They stay with the caller: an ``Observation`` in JSON
            has the fields of ``Applied`` only, and so does ``decided_call``.
    """

    decided_call: CallDecision | None = None
    findings: tuple[Finding, ...] = ()


@untraced
def describe(target: Target, decision: Decision) -> ApplyResult:
    """Describe what a target holds, as ``apply`` returns it.

    Tensors from stamps and tags; of the call only what was decided is known.
    """
    tensors = RoleTensors(target)
    return describe_stamped(
        tensors, decision, {role: stamp_of(tensors[role]) for role in tensors.present(decision.tensors)}
    )


def describe_stamped(tensors: RoleTensors, decision: Decision, stamps: Mapping[Role, Stamp | None]) -> ApplyResult:
    """Describe what a target holds, its stamps being known.

    Args:
        tensors: the target's.
        decision: what was applied.
        stamps: by role, those that the target has.
    """
    found = {
        "decided_call": decision.call,
        "events": ("apply",),
        "tensors": FrozenDict(
            {role: _observed(role, tensors, decision, stamps[role]) for role in decision.tensors if role in stamps}
        ),
        "findings": tuple(_difference(role, stamp) for role, stamp in stamps.items() if stamp and stamp.aiter_bytes),
    }
    return unvalidated(ApplyResult, {**_no_result().__dict__, **found}, set(found))


# Process-wide: frozen.
@cache
def _no_result() -> ApplyResult:
    return ApplyResult()


@untraced
def retag(target: Target) -> tuple[Role, ...]:
    """Restore AITER's tag; return the roles that lacked it.

    Every object gets it whose stamp asks for it.

    The tag is a Python attribute, lost by ``nn.Parameter(t)``, ``.data`` and ``.view(dtype)``; the stamp is not.
    """
    tensors = RoleTensors(target)
    lacked: list[Role] = []
    for role in tensors.names:
        tensor = tensors[role]
        stamp = stamp_of(tensor)
        if stamp is not None and stamp.state == "applied":
            hand_over_stamps(tensor)
        if (
            stamp is not None
            and stamp.is_shuffled
            and stamp.state == "applied"
            and not getattr(tensor, AITER_TAG, False)
        ):
            setattr(tensor, AITER_TAG, True)
            lacked.append(role)
    return tuple(lacked)


def _observed(role: Role, tensors: RoleTensors, decision: Decision, stamp: Stamp | None) -> TensorObservation:
    tensor, decided = tensors[role], decision.tensors[role]
    known, tagged = stamp is not None and stamp.state == "applied", bool(getattr(tensor, AITER_TAG, False))
    unknown = stamp is not None and stamp.state == "unknown"
    found = {
        "layout": stamp.layout if stamp and known and not stamp.aiter_bytes else None,
        "is_shuffled": tagged if decided.is_shuffled and not unknown else None,
        "contiguous": tensor.is_contiguous(),
        "dtype": decided.dtype,
        "logical_shape": decided.logical_shape,
        "physical_shape": decided.physical_shape,
        "passed_shape": decided.passed_shape,
        "pad_fill": ("zero" if stamp.fill == 0 else stamp.fill) if stamp else None,
    }
    return unvalidated(TensorObservation, {**_UNSEEN, **found}, _SEEN)  # a decision's values are valid


def _difference(role: Role, stamp: Stamp) -> Finding:
    return Finding.of(
        "layout_mismatch",
        f"AITER's function for {stamp.layout} gives other bytes than the book's layout; AITER's bytes are used",
        role=role,
        expected="the bytes of AITER's function",
        actual=f"the bytes of layout {stamp.layout}",
        fix="run preshuffle doctor, which compares every layout with the installed AITER, and report the difference",
    )

"""Differences between an observed call and the decided one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Literal

import torch

from preshuffle.layouts.engines.observed_call import ObservedCall, observed_call
from preshuffle.layouts.loader import AITER_TAG
from preshuffle.layouts.tensors import ACCEPTED_DTYPES
from preshuffle.registry import Decision, LayoutError, Registry, TensorDecision
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.words import ROLES, Role
from preshuffle.registry.layer import WEIGHTS

_FIELDS: Final = ("gate_mode", "hidden_pad", "intermediate_pad", "doweight_stage1", "quant_dtype_a")
_OF_QUERY: Final = ("quant_type", "activation")
_VIEWED: Final = ("fp4x2",)
"""dtypes that AITER recognises by the tensor's own: bytes of another one are taken for other weights."""


class CallDifference(Frozen):
    """Argument that is passed otherwise than decided.

    Attributes:
        argument: a field of the call, or the role of a tensor.
        decided: what should be passed.
        passed: what was.
    """

    argument: str
    decided: str
    passed: str

    def __str__(self) -> str:
        """Return it as one clause."""
        return f"{self.argument} is {self.passed}, decided is {self.decided}"


def call_differences(
    call: ObservedCall,
    decision: Decision,
    *,
    tensors: Mapping[Role, torch.Tensor] | None = None,
    held: Collection[Role] = ROLES,
    expert_map: torch.Tensor | Literal["unknown"] | None = "unknown",
    function: str = "aiter.fused_moe",
    aiter: str | None = None,
    registry: Registry | None = None,
) -> tuple[CallDifference, ...]:
    """Compare what one call passed with what a decision wants.

    What the call does not say is no difference. Clamps are left to ``Registry.check``, which knows what AITER makes of
    a limit that is left out.

    Args:
        call: read with ``defaults=True``, so that arguments left out have the function's own.
        decision: of the layer.
        tensors: the very objects that were passed, by role; not compared where it is None.
        held: roles of which the layer holds a tensor: scales of inputs that it lacks are computed at the call.
        expert_map: what was passed as one, which may be None.
        function: signature of the function that was called.
        aiter: AITER's version.
        registry: whose book's signatures; those of the packaged book by default.
    """
    book = (registry or Registry.default()).book
    try:
        kwargs = decision.call.kwargs(function, aiter=aiter, signatures=book.signatures)
    except LayoutError as error:
        return (CallDifference(argument="function", decided=decision.call.function, passed=f"{function}: {error}"),)
    wanted = observed_call(kwargs, function=function, aiter=aiter, defaults=True, registry=registry)
    found = [*_scalars(call, wanted, decision)]
    if expert_map is None and decision.call.expert_map is not None:
        found.append(CallDifference(argument="expert_map", decided=decision.call.expert_map, passed="nothing"))
    if tensors is not None:
        found += _tensors(tensors, held, decision)
    return tuple(found)


def _scalars(call: ObservedCall, wanted: ObservedCall, decision: Decision) -> Iterator[CallDifference]:
    pairs: dict[str, tuple[Any, Any]] = {name: (getattr(wanted, name), getattr(call, name)) for name in _FIELDS}
    pairs |= {name: (wanted.query_fields.get(name), call.query_fields.get(name)) for name in _OF_QUERY}
    pairs["bias"] = decision.call.bias, call.bias_passed
    pairs["expert_map"] = decision.call.expert_map, call.expert_map
    for name, (decided, passed) in pairs.items():
        if decided is not None and passed is not None and decided != passed:
            yield CallDifference(argument=name, decided=str(decided), passed=str(passed))


def _tensors(
    passed: Mapping[Role, torch.Tensor], held: Collection[Role], decision: Decision
) -> Iterator[CallDifference]:
    for role, decided in decision.tensors.items():
        if role.endswith("_bias"):
            continue  # whether biases are passed is one field of the call
        if role in passed:
            yield from _tensor(role, passed[role], decided)
        elif role in held:
            yield CallDifference(argument=role, decided=decided.dtype, passed="nothing")
    for role in passed:
        if role not in decision.tensors and not role.endswith("_bias"):
            yield CallDifference(argument=role, decided="nothing", passed=str(passed[role].dtype))


def _tensor(role: Role, passed: torch.Tensor, decided: TensorDecision) -> Iterator[CallDifference]:
    accepted = ACCEPTED_DTYPES[decided.dtype]
    accepted = accepted[:1] if decided.dtype in _VIEWED else accepted
    if passed.dtype not in accepted:
        yield CallDifference(argument=f"{role}.dtype", decided=decided.dtype, passed=str(passed.dtype))
    if role in WEIGHTS and decided.is_shuffled != bool(getattr(passed, AITER_TAG, False)):
        now = str(not decided.is_shuffled)
        yield CallDifference(argument=f"{role}.{AITER_TAG}", decided=str(decided.is_shuffled), passed=now)

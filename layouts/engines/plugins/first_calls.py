"""First call of each loaded layer: observed, and compared with the decision."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import torch

from preshuffle.layouts.engines.call_differences import CallDifference, call_differences
from preshuffle.layouts.engines.guard import CallGuard, guarded_function
from preshuffle.layouts.engines.guarded_call import CallChecker
from preshuffle.layouts.engines.observed_call import ObservedCall, observed_call
from preshuffle.layouts.engines.observed_layer import values_per_byte
from preshuffle.layouts.engines.passed_arguments import passed_arguments
from preshuffle.layouts.engines.plugins.wrapping import rebind
from preshuffle.layouts.loader import RoleTensors
from preshuffle.registry import Applied, Decision, Finding, Observation, Query, Registry
from preshuffle.registry.base.words import ROLES, Role
from preshuffle.registry.kernels import Signature

_AITER: Final = "aiter"
_USUAL: Final = "fused_moe"
"""AITER's function that layers call about which nothing is decided."""
_FROM_BYTES: Final = ("layout", "pad_fill", "logical_shape")
"""What only comparing bytes shows of a tensor, not the object that is passed."""

log = logging.getLogger("preshuffle.plugins")


@dataclass(frozen=True, slots=True)
class LoadedLayer:
    """A converted layer, as its first call will be compared.

    Attributes:
        name: as the engine calls it.
        number: in its model.
        observation: what was seen of it after its conversion.
        decision: what it is compared with; None where the registry has none.
        addresses: of its tensors.
    """

    name: str
    number: int
    observation: Observation
    decision: Decision | None
    addresses: Mapping[Role, int]


@dataclass(frozen=True, slots=True)
class CallComparison:
    """What the first call of a layer showed.

    Attributes:
        observation: of the layer with its call.
        differences: between the call and the decided one.
    """

    layer: LoadedLayer
    observation: Observation
    differences: tuple[CallDifference, ...]


class FirstCalls:
    """Guards around AITER's functions, and the layers whose first call they await.

    Attributes:
        pending: layers that were not called yet, by the address of w13.
        guards: by id of the function's signature.
    """

    def __init__(
        self,
        registry: Registry,
        here: Mapping[str, Any],
        take: Callable[[CallComparison], None],
        again: Callable[[], None],
    ) -> None:
        """Begin without layers.

        Args:
            registry: whose book has the functions' signatures.
            here: fields of the query that this process tells.
            take: gets each layer's first call; it must not raise.
            again: is called where a layer runs with another number of tokens; likewise.
        """
        self.pending: dict[int, LoadedLayer] = {}
        self.guards: dict[str, CallGuard] = {}
        self.registry, self.take, self.again = registry, take, again
        self._here = {name: value for name, value in here.items() if name not in ("engine", "env")}
        self._prepared: dict[int, Query] = {}

    def expect(
        self, layer: torch.nn.Module, name: str, number: int, seen: Observation, decision: Decision | None
    ) -> None:
        """Await the first call of a layer that was just converted."""
        tensors = RoleTensors(layer)
        addresses: dict[Role, int] = {role: tensors[role].data_ptr() for role in tensors.names}
        address = addresses.get("w13_weight")
        if not address:
            return
        for stale in [key for key, one in self.pending.items() if one.name == name]:  # loaded anew, somewhere else
            del self.pending[stale]
        self.pending[address] = LoadedLayer(name, number, seen, decision, addresses)
        self._prepared.pop(address, None)
        if "apply" in seen.applied.events:  # laid out here: its stamps are checked at every new number of tokens
            self._prepared[address] = seen.query
        self._guard(decision.call.function if decision is not None else _USUAL)
        for guard in self.guards.values():
            guard.forget()

    def _guard(self, function: str) -> None:
        """Put a guard around a function of AITER's, once, wherever it was imported to."""
        known = self.registry.book.signatures.by_id.values()
        signature = next((one for one in known if one.owner == _AITER and one.function == function), None)
        if signature is None or signature.id in self.guards or _AITER not in sys.modules:
            return
        module, _, name = signature.path.partition(":")
        original = getattr(import_module(module), name)
        checker = CallChecker(self.registry, signature.id, self._here, queries=self._prepared)
        guard = CallGuard(_FirstCallJudge(self, signature, checker), "count")
        self.guards[signature.id] = guard
        rebind(original, guarded_function(original, guard, signature))


class _FirstCallJudge:
    """Judge of the calls of one function."""

    def __init__(self, calls: FirstCalls, signature: Signature, checker: CallChecker) -> None:
        self._calls, self._signature, self._checker = calls, signature, checker

    @property
    def queries(self) -> dict[int, Query]:
        """Queries of the layers that were laid out here."""
        return self._checker.queries

    def findings(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Finding, ...]:
        """Compare a layer's first call, and judge stamps at every one."""
        release = self._checker.here.get(_AITER)
        passed = {
            argument.carries: value
            for _, argument, value in passed_arguments(self._signature, args, kwargs, release)
            if argument is not None
        }
        w13 = passed.get("w13_weight")
        layer = self._calls.pending.pop(w13.data_ptr(), None) if isinstance(w13, torch.Tensor) else None
        if layer is not None:
            self._calls.take(self._compare(layer, args, kwargs, passed))
        else:
            self._calls.again()
        findings = self._checker.findings(args, kwargs)
        for one in findings:
            log.warning("a call of %s: %s: %s. Fix: %s", self._signature.function, one.code, one.message, one.fix)
        return findings

    def _compare(
        self, layer: LoadedLayer, args: Sequence[Any], kwargs: Mapping[str, Any], passed: Mapping[str, Any]
    ) -> CallComparison:
        query, registry = layer.observation.query, self._calls.registry
        about: dict[str, Any] = {"function": self._signature.id, "aiter": query.aiter, "registry": registry}
        call = observed_call(kwargs, args=args, defaults=True, packed=values_per_byte(query), **about)
        tensors: dict[Role, torch.Tensor] = {
            role: passed[role] for role in ROLES if isinstance(passed.get(role), torch.Tensor)
        }
        differences: tuple[CallDifference, ...] = ()
        if layer.decision is not None:
            more: dict[str, Any] = {"held": layer.addresses, "expert_map": passed.get("expert_map")}
            differences = call_differences(call, layer.decision, tensors=tensors, **more, **about)
        return CallComparison(layer, _with_call(layer, call, tensors), differences)


def _with_call(layer: LoadedLayer, call: ObservedCall, passed: Mapping[Role, torch.Tensor]) -> Observation:
    """Return a layer's observation with what its call passed.

    What bytes had shown of a tensor stays, where the call got the same memory.
    """
    before = layer.observation.applied
    tensors = dict(before.tensors)
    for role, seen in call.tensors.items():
        known = before.tensors.get(role)
        if known is not None and passed[role].data_ptr() == layer.addresses.get(role):
            shown = {name: getattr(known, name) for name in _FROM_BYTES if getattr(seen, name) is None}
            seen = seen.model_copy(update=shown)
        tensors[role] = seen
    stated = {
        name: getattr(one, name)
        for one in (before, call)
        for name in one.model_fields_set & set(Applied.model_fields)
        if getattr(one, name) is not None
    }
    query = layer.observation.query.altered(**call.query_fields)
    return Observation(query=query, applied=Applied(**{**stated, "tensors": tensors}))

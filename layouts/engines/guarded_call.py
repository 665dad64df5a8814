"""Check of one call before it runs: stamps against gate_mode and kernel."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from preshuffle.layouts.engines.environment import switches_of
from preshuffle.layouts.engines.observed_call import ObservedCall, observed_call
from preshuffle.layouts.engines.passed_arguments import passed_arguments
from preshuffle.layouts.stamps import Stamp, stamp_of
from preshuffle.registry import Finding, Observation, Query, Registry
from preshuffle.registry.base.words import ROLES, Role
from preshuffle.registry.values.observation import Applied

CODES: Final = frozenset({"layout_mismatch", "tag_lost", "tag_false", "double_shuffle", "raw_write"})
"""Findings that make a call wrong whatever the model is."""
_STATES: Final = {
    "reloading": ("plain bytes are being loaded over laid-out ones", "call finish_reload before the layer runs"),
    "broken": ("a move in place was interrupted: its bytes are neither plain nor laid out", "load the layer again"),
}
_MODEL: Final = "guarded-call"


@dataclass(frozen=True, slots=True)
class CallChecker:
    """Judges a call by its arguments alone.

    Attributes:
        registry: whose book and kernel tables count.
        function: signature of the function.
        here: fields of the query that this process tells (``arch``, ``cu_num``, ``aiter``, …).
        version: the engine's, where the function is an engine's.
        queries: of prepared layers, by the address of w13; they count before what the arguments say.
    """

    registry: Registry
    function: str
    here: Mapping[str, Any]
    version: str | None = None
    queries: dict[int, Query] = field(default_factory=dict)

    def findings(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Finding, ...]:
        """Return what makes a call wrong; nothing for bytes that nobody stamped.

        Raises:
            PreshuffleError: the arguments are not the function's, or the query that they make is none.
        """
        signature = self.registry.book.signatures.find(self.function)
        aiter = self.here.get("aiter")
        release = aiter if signature.owner == "aiter" else self.version
        passed = {name: (one, value) for name, one, value in passed_arguments(signature, args, kwargs, release)}
        tensors = {
            role: value
            for one, value in passed.values()
            for role in ROLES
            if one is not None and role == one.carries and isinstance(value, torch.Tensor)
        }
        stamps = {role: stamp for role, tensor in tensors.items() if (stamp := stamp_of(tensor)) is not None}
        unfinished = tuple(_unfinished(role, stamp) for role, stamp in stamps.items() if stamp.state in _STATES)
        if unfinished:
            return unfinished
        w13, w2 = stamps.get("w13_weight"), stamps.get("w2_weight")
        if w13 is None or w2 is None or "applied" not in (w13.state, w2.state):
            return ()
        call = observed_call(
            kwargs, args=args, function=self.function, aiter=aiter, version=self.version, defaults=True,
            registry=self.registry,
        )  # fmt: skip
        known = self.queries.get(tensors["w13_weight"].data_ptr())
        tokens = _tokens(passed, signature.arguments)
        query = self._query(call, w13, tokens) if known is None else known.altered(tokens=(tokens,))
        observation = Observation(query=query.altered(**call.query_fields), applied=_bytes_of(call))
        report = self.registry.check(observation)
        return tuple(one for one in report.findings if one.code in CODES and one.severity == "error")

    def _query(self, call: ObservedCall, w13: Stamp, tokens: int) -> Query:
        """Return a query of one rank, with the sizes that its tensors have."""
        gate_up, down = call.tensors["w13_weight"], call.tensors["w2_weight"]
        shape = down.logical_shape or down.physical_shape or ()
        experts, hidden, intermediate = shape
        rows = (gate_up.logical_shape or gate_up.physical_shape or (0, 0))[1]
        return Query.parse(
            {
                "model": _MODEL,
                **self.here,
                "env": {**switches_of(os.environ, self.registry.book), **self.here.get("env", {})},
                "hidden_size": hidden,
                "intermediate_size": intermediate,
                "num_experts": experts,
                "gated": rows == 2 * intermediate,
                "weight_dtype": "fp8" if w13.dtype.startswith("fp8") else w13.dtype,
                "gate_up_order": w13.source_order,
                "bias": call.bias_passed,
                "tokens": [tokens],
            }
        )


def _bytes_of(call: ObservedCall) -> Applied:
    """Return what decides about bytes and kernels; which experts are local does not."""
    return call.altered(expert_map=None, mask_ones=None, mask_size=None, local_experts=None)


def _tokens(passed: Mapping[str, tuple[Any, Any]], arguments: Mapping[str, Any]) -> int:
    first = next(iter(arguments))
    return max(1, int(passed[first][1].shape[0]))


def _unfinished(role: Role, stamp: Stamp) -> Finding:
    message, fix = _STATES[stamp.state]
    return Finding.of("raw_write", message, role=role, actual=stamp.state, fix=fix)

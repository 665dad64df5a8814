"""A decision in a few words per tensor, for tables of what engines do."""

from __future__ import annotations

from typing import Any

from preshuffle.registry import Decision
from preshuffle.registry.values.decision import CallDecision, TensorDecision

_DEFAULT_CALL = CallDecision(
    gate_mode="separated", quant_type="No", activation="Silu", hidden_pad=0, intermediate_pad=0, bias=False
)
_ALWAYS = ("gate_mode", "quant_type", "activation")


def described(decision: Decision) -> dict[str, str]:
    """Return each tensor as ``layout dtype shape``, with pads, fill, row orders, steps and tag where there are any."""
    return {role: _tensor(tensor) for role, tensor in decision.tensors.items()}


def call_of(decision: Decision) -> dict[str, Any]:
    """Return the call's arguments: the three that every call has, and the others where they are not the default."""
    default = _DEFAULT_CALL.model_dump()
    return {
        name: value for name, value in decision.call.model_dump().items() if name in _ALWAYS or value != default[name]
    }


def _tensor(tensor: TensorDecision) -> str:
    words = [tensor.layout, tensor.dtype, "x".join(map(str, tensor.physical_shape))]
    words += [f"+{size}{side}" for side, size in (("rows", tensor.pad.rows), ("k", tensor.pad.k)) if size]
    if tensor.physical_shape != tensor.logical_shape:
        words.append(f"fill {tensor.fill}")
    if tensor.order is not None:
        words.append(f"{tensor.source_order}->{tensor.order}")
    words += [*tensor.steps, *(["tagged"] if tensor.is_shuffled else []), *(["rank0"] if tensor.rank0_only else [])]
    return " ".join(words)

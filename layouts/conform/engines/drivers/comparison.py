"""Comparison of an engine's layer with ``apply`` and the decided call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from preshuffle.layouts.conform.standins.aiter_modules import ActivationType, QuantType
from preshuffle.layouts.loader import apply
from preshuffle.layouts.tensors import ACCEPTED_DTYPES
from preshuffle.registry import Decision
from preshuffle.registry.base.words import Role
from preshuffle.registry.values.decision import CallDecision

ARGUMENTS: Final[dict[str, Role]] = {
    "w1": "w13_weight",
    "w2": "w2_weight",
    "w1_scale": "w13_weight_scale",
    "w2_scale": "w2_weight_scale",
    "bias1": "w13_bias",
    "bias2": "w2_bias",
    "a1_scale": "w13_input_scale",
    "a2_scale": "w2_input_scale",
}
"""Roles by the parameters of AITER's ``fused_moe``."""


Found = dict[str, tuple[str, str]]
"""Differences by argument: what the book says, and what the engine does."""


def outcome_of(found: Found) -> str:
    """Return ``equal``, ``rank`` or ``differs``.

    ``rank``: equal bytes in another number of dimensions.
    """
    if not found:
        return "equal"
    return "rank" if all(name.endswith(".shape") for name in found) else "differs"


def compare(call: Mapping[str, Any], decision: Decision, plain: Mapping[Role, Tensor]) -> Found:
    """Compare the recorded call with ``apply`` and the decided call."""
    target: dict[str, Tensor] = {role: tensor.clone() for role, tensor in plain.items()}
    apply(target, decision, backend="native", allow=[finding.code for finding in decision.findings])
    found: Found = {}
    for argument, role in ARGUMENTS.items():
        _compare_tensor(found, argument, call.get(argument), target.get(role))
    for argument, expected in expected_arguments(decision.call).items():
        if (passed := call.get(argument, "absent")) != expected:
            found[argument] = repr(expected), repr(passed)
    return found


def compare_layer(
    layer: torch.nn.Module, decision: Decision, plain: Mapping[Role, Tensor], names: Mapping[str, str]
) -> Found:
    """Compare a layer's tensors with ``apply``.

    For layers on which the engine runs other kernels than AITER's.

    Args:
        layer: the engine's, converted.
        decision: what is applied.
        plain: to which tensors.
        names: the layer's names behind ``w13_`` and ``w2_``, where they are not the roles'.
    """
    target: dict[str, Tensor] = {role: tensor.clone() for role, tensor in plain.items()}
    apply(target, decision, backend="native", allow=[finding.code for finding in decision.findings])
    found: Found = {}
    for argument, role in ARGUMENTS.items():
        part, _, kind = role.partition("_")
        _compare_tensor(found, argument, getattr(layer, f"{part}_{names.get(kind, kind)}", None), target.get(role))
    return found


def _compare_tensor(found: Found, name: str, engine: Tensor | None, ours: Tensor | None) -> None:
    if engine is None or ours is None:
        if engine is not ours:
            found[name] = describe(ours), describe(engine)
        return
    if engine.element_size() != ours.element_size() or engine.numel() != ours.numel():
        found[name] = describe(ours), describe(engine)
        return
    if engine.dtype != ours.dtype and not any({engine.dtype, ours.dtype} <= same for same in SAME_BYTES):
        found[name] = describe(ours), describe(engine)
    if not torch.equal(bytes_of(engine), bytes_of(ours)):
        found[name] = _first_byte(bytes_of(ours), bytes_of(engine))
    if squeezed(engine) != squeezed(ours):
        found[f"{name}.shape"] = describe(ours), describe(engine)
    if name in ("w1", "w2") and shuffled(engine) != shuffled(ours):
        found[f"{name}.is_shuffled"] = str(shuffled(ours)), str(shuffled(engine))


def _first_byte(ours: Tensor, engine: Tensor) -> tuple[str, str]:
    unequal = ours != engine
    at = int(unequal.nonzero()[0])
    differ = f"{int(unequal.sum()):,} of {unequal.numel():,} differ"
    return f"byte {at} is 0x{int(ours[at]):02x}", f"byte {at} is 0x{int(engine[at]):02x}, {differ}"


SAME_BYTES: Final = ({torch.uint8, torch.float8_e8m0fnu}, {torch.uint8, torch.int8, *ACCEPTED_DTYPES["i4x2"]})
"""dtypes of e8m0 scales, and of packed int4: kernels take either."""


def squeezed(tensor: Tensor) -> tuple[int, ...]:
    """Return the shape without dimensions of one at the end."""
    shape = list(tensor.shape)
    while shape and shape[-1] == 1:
        shape.pop()
    return tuple(shape)


def describe(tensor: Tensor | None) -> str:
    """Return dtype and shape."""
    if tensor is None:
        return "none is passed"
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def bytes_of(tensor: Tensor) -> Tensor:
    """Return a tensor's bytes."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def shuffled(tensor: Tensor) -> bool:
    """Return AITER's tag."""
    return bool(getattr(tensor, "is_shuffled", False))


QUANT_TYPES: Final = {"per_1x128": "per_128x128"}
"""AITER's own names of quantization types where the book has others."""


def expected_arguments(call: CallDecision) -> dict[str, Any]:
    """Return scalar arguments of ``fused_moe`` that a decision wants."""
    expected: dict[str, Any] = {
        "quant_type": QUANT_TYPES.get(call.quant_type, call.quant_type),
        "activation": call.activation,
        "gate_mode": call.gate_mode if call.gate_mode_passed else "separated",
        "hidden_pad": call.hidden_pad,
        "intermediate_pad": call.intermediate_pad,
        "swiglu_limit": limit_of(call.activation, call.swiglu_limit),
        "doweight_stage1": call.doweight_stage1,
    }
    if call.activation == "Situv2":
        expected |= {"beta": call.situ_beta, "linear_beta": call.situ_linear_beta}
    return expected


def limit_of(activation: str, limit: float | None) -> float:
    """Return the clamp that AITER computes with.

    Since 0.1.17 it reads none as 7 for Swiglu.
    """
    return limit or (7.0 if activation == "Swiglu" else 0.0)


def scalar_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded call with enumerators as names and defaults filled in."""
    activation = call.get("activation", ActivationType.Silu).name
    return {
        **call,
        "quant_type": QUANT_TYPES.get(name := call.get("quant_type", QuantType.No).name, name),
        "activation": activation,
        "gate_mode": str(getattr(call.get("gate_mode"), "value", call.get("gate_mode") or "separated")),
        "hidden_pad": call.get("hidden_pad", 0),
        "intermediate_pad": call.get("intermediate_pad", 0),
        "swiglu_limit": limit_of(activation, call.get("swiglu_limit")),
        "doweight_stage1": bool(call.get("doweight_stage1", False)),
    }

"""Runner that calls AITER's ``fused_moe``.

No AMD GPU was at hand: this was tested against the signatures of AITER's Python functions and stand-ins for the kernel.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

import torch

from preshuffle.layouts.probe.probe import ProbeError
from preshuffle.registry import Decision
from preshuffle.registry.values.decision import CallDecision

FUNCTION: Final = "fused_moe"
IMPLIED_LIMIT: Final = 7.0
"""AITER's own limit for SwiGLU where a call cannot pass one."""


def why_not_here() -> str | None:
    """Return why AITER cannot run here; None where it can.

    Imports nothing of it.
    """
    if torch.version.hip is None:
        return "this torch has no ROCm"
    if not torch.cuda.is_available():
        return "there is no AMD GPU"
    if find_spec("aiter") is None:
        return "the package aiter (distribution amd-aiter) is not installed"
    return None


def device_arch() -> str | None:
    """Return the first GPU's gfx name, without its feature suffixes."""
    name = str(getattr(torch.cuda.get_device_properties(0), "gcnArchName", ""))
    return name.partition(":")[0] or None


class AiterRunner:
    """Callable that runs ``aiter.fused_moe.fused_moe`` as a decision says.

    It passes the arguments that this AITER has.
    """

    def __init__(self, load: Callable[[], tuple[Callable[..., torch.Tensor], ModuleType]] | None = None) -> None:
        """Take a function that imports AITER.

        ``load`` returns AITER's function and its package (a stand-in's, in tests); AITER's own by default.
        """
        self._load = load or _import_aiter
        self._loaded: tuple[Callable[..., torch.Tensor], ModuleType] | None = None

    def __call__(
        self,
        tensors: dict[str, torch.Tensor],
        decision: Decision,
        x: torch.Tensor,
        topk_ids: torch.Tensor,
        topk_weights: torch.Tensor,
    ) -> torch.Tensor:
        """Run the layer under the recipe's environment.

        The hidden dimension is padded before and cut after.
        """
        with environment(decision.env):
            if self._loaded is None:
                self._loaded = self._load()
            fused_moe, package = self._loaded
            hidden = decision.tensors["w2_weight"].physical_shape[1]
            padded = torch.nn.functional.pad(x, (0, hidden - x.shape[1])).contiguous()
            arguments = call_arguments(inspect.signature(fused_moe), tensors, decision, package)
            result = fused_moe(padded, topk_weight=topk_weights, topk_ids=topk_ids, **arguments)
        return result[:, : x.shape[1]]


def call_arguments(
    signature: inspect.Signature, tensors: Mapping[str, torch.Tensor], decision: Decision, package: Any
) -> dict[str, Any]:
    """Return ``fused_moe``'s keyword arguments for laid-out tensors.

    As far as this AITER has them.

    Args:
        signature: of this AITER's ``fused_moe``.
        tensors: laid-out tensors by role.
        decision: what they were laid out by.
        package: AITER's package, for its enums.

    Raises:
        ProbeError: an argument is missing that the bytes need; without it the result would be wrong.
    """
    call = decision.call
    if call.function != FUNCTION:
        raise ProbeError(f"recipe {decision.recipe} is for {call.function}; AITER's {FUNCTION} does not read its bytes")
    arguments: dict[str, Any] = {
        "w1": tensors["w13_weight"],
        "w2": tensors["w2_weight"],
        "w1_scale": tensors.get("w13_weight_scale"),
        "w2_scale": tensors.get("w2_weight_scale"),
        "activation": _enum_member(package, "ActivationType", call.activation),
        "quant_type": _enum_member(package, "QuantType", call.quant_type),
        "dtype": torch.bfloat16,
        "hidden_pad": call.hidden_pad,
        "intermediate_pad": call.intermediate_pad,
        **_gate_mode(signature, call),
        **_limit(signature, call),
    }
    for argument, role in (("a1_scale", "w13_input_scale"), ("a2_scale", "w2_input_scale")):
        if role in tensors:
            arguments[argument] = tensors[role]
    if call.bias:
        arguments |= {"bias1": tensors["w13_bias"], "bias2": tensors["w2_bias"]}
    missing = [name for name in arguments if name not in signature.parameters and not _takes_any(signature)]
    # a pad that is not passed costs time only; everything else changes the result
    needed = [name for name in missing if name not in ("hidden_pad", "intermediate_pad", "dtype")]
    if needed:
        raise ProbeError(f"this AITER's fused_moe takes no {', '.join(needed)}; the recipe needs it")
    return {name: value for name, value in arguments.items() if name not in missing}


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables temporarily.

    What was there before comes back, whatever happens.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _takes_any(signature: inspect.Signature) -> bool:
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature.parameters.values())


def _gate_mode(signature: inspect.Signature, call: CallDecision) -> dict[str, Any]:
    """Return the ``gate_mode`` argument, if this AITER takes it.

    An AITER without it reads gate and up of MXFP4 SwiGLU alternating, and all others apart.
    """
    mode, parameter = call.gate_mode, signature.parameters.get("gate_mode")
    if parameter is None and _takes_any(signature):
        return {"gate_mode": mode}
    if parameter is None:
        alternating = call.quant_type == "per_1x32" and call.activation == "Swiglu"
        reads, needs = ("alternating", "separated") if alternating else ("separated", "alternating")
        if (mode == "interleave") != alternating:
            raise ProbeError(f"this AITER's fused_moe takes no gate_mode; it reads gate and up {reads}, not {needs}")
        return {}
    default = parameter.default
    return {"gate_mode": type(default)(mode) if isinstance(default, Enum) else mode}


def _limit(signature: inspect.Signature, call: CallDecision) -> dict[str, Any]:
    """Return the ``swiglu_limit`` argument, if the call needs one.

    Other activations than SwiGLU are not clamped unless a call says so.
    """
    limit = call.swiglu_limit
    if call.activation != "Swiglu" and limit is None:
        return {}
    if "swiglu_limit" in signature.parameters or _takes_any(signature):
        return {"swiglu_limit": 0.0 if limit is None else limit}
    if limit != IMPLIED_LIMIT:
        raise ProbeError(
            f"this AITER's fused_moe takes no swiglu_limit; the model's is {limit}, its own {IMPLIED_LIMIT}"
        )
    return {}


def _enum_member(package: Any, enum: str, name: str) -> Any:
    try:
        return getattr(getattr(package, enum), name)
    except AttributeError:
        raise ProbeError(f"this AITER has no {enum}.{name}") from None


def _import_aiter() -> tuple[Callable[..., torch.Tensor], ModuleType]:
    reason = why_not_here()
    if reason is not None:
        raise ProbeError(f"AITER does not run here: {reason}")
    package = import_module("aiter")
    function: Callable[..., torch.Tensor] = import_module("aiter.fused_moe").fused_moe
    return function, package

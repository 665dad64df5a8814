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

from preshuffle.layouts.calls import call_arguments
from preshuffle.layouts.probe.probe import ProbeError
from preshuffle.registry import Decision, LayoutError

OUTPUT_DTYPE: Final = "dtype"
"""The argument that says what the result is; the caller's own."""


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
            arguments = runner_arguments(inspect.signature(fused_moe), tensors, decision, package)
            result = fused_moe(padded, topk_weight=topk_weights, topk_ids=topk_ids, **arguments)
        return result[:, : x.shape[1]]


def runner_arguments(
    signature: inspect.Signature, tensors: dict[str, torch.Tensor], decision: Decision, package: object
) -> dict[str, Any]:
    """Return ``fused_moe``'s keyword arguments for laid-out tensors, as this AITER takes them.

    Args:
        signature: of this AITER's ``fused_moe``.
        tensors: laid-out tensors by role.
        decision: what they were laid out by.
        package: AITER's package, for its enumerators.

    Raises:
        ProbeError: an argument is missing that the bytes need; without it the result would be wrong.
    """
    parameters = None if _takes_any(signature) else [*signature.parameters]
    try:
        arguments = call_arguments(tensors, decision, parameters=parameters, package=package)
    except LayoutError as error:
        raise ProbeError(str(error)) from None
    if parameters is None or OUTPUT_DTYPE in parameters:
        arguments[OUTPUT_DTYPE] = torch.bfloat16
    return {name: _as_default(signature.parameters.get(name), value) for name, value in arguments.items()}


def _as_default(parameter: inspect.Parameter | None, value: Any) -> Any:
    """Return a value as a member of the enumeration that the parameter's default is of."""
    default = parameter.default if parameter is not None else None
    return type(default)(value) if isinstance(default, Enum) and isinstance(value, str) else value


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


def _import_aiter() -> tuple[Callable[..., torch.Tensor], ModuleType]:
    reason = why_not_here()
    if reason is not None:
        raise ProbeError(f"AITER does not run here: {reason}")
    package = import_module("aiter")
    function: Callable[..., torch.Tensor] = import_module("aiter.fused_moe").fused_moe
    return function, package

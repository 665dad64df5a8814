"""Functions of an engine's that only convert tensors, done by ``apply`` instead.

Where a method makes more than the weights' layout (parameters, kernels), the engine's own function for the layout
alone is the place to replace: it gets a layer's tensors and returns them laid out, and the engine goes on with them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from preshuffle.layouts.calls import kernel_view
from preshuffle.layouts.engines.plugins.shadow import LiveLayer, TensorStates, states_of
from preshuffle.layouts.loader import RoleTensors, apply
from preshuffle.registry import Decision
from preshuffle.registry.base.words import Role


@dataclass(slots=True)
class LayerInHand:
    """A layer whose method the engine runs now.

    Attributes:
        live: what is decided for it.
        states: of its tensors before the method began.
        why_kept: why the engine's own function converted it; None once it was done here.
    """

    live: LiveLayer
    states: TensorStates
    why_kept: str | None = "its method calls none of the functions that only convert"

    @classmethod
    def of(cls, live: LiveLayer) -> LayerInHand:
        """Take a layer before its method runs."""
        return cls(live, states_of(live.layer))


def passed_arguments_of(
    original: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return a call's arguments by the names of the function's parameters."""
    return inspect.signature(original).bind(*args, **kwargs).arguments


def obstacle(one: LayerInHand, names: Mapping[Role, str], arguments: Mapping[str, Any]) -> str | None:
    """Return why tensors cannot be laid out here, or None.

    Args:
        one: the layer.
        names: the function's arguments, by the role of the tensor that each is.
        arguments: what they are now.
    """
    decision = one.live.decision
    if decision is None:
        return "the registry decides nothing for it"
    errors = [finding.code for finding in decision.findings if finding.severity == "error"]
    if errors:
        return f"the decision has errors: {', '.join(errors)}"
    own = RoleTensors(one.live.layer)
    passed = {role for role, name in names.items() if arguments.get(name) is not None}
    others = {role for role in decision.tensors if role in own.names} - passed
    if others:
        return f"the function does not get {', '.join(sorted(others))}, which the decision lays out"
    more = passed - decision.tensors.keys()
    if more:
        return f"the function gets {', '.join(sorted(more))}, about which nothing is decided"
    for role in passed:
        if role not in own.names or arguments[names[role]].data_ptr() != own[role].data_ptr():
            return f"the function does not get the layer's own {role}"
    if states_of(one.live.layer) != one.states:
        return "the engine has written to its tensors before"
    return None


def convert(
    decision: Decision, names: Mapping[Role, str], arguments: Mapping[str, Any], *, last_rank: bool, pads: Any
) -> tuple[torch.Tensor | None, ...]:
    """Lay tensors out; return them in the order of the arguments.

    Raises:
        LayoutError: they are not what the decision says; nothing was changed.
    """
    tensors: dict[str, torch.Tensor] = {
        role: arguments[name] for role, name in names.items() if arguments.get(name) is not None
    }
    apply(tensors, decision, last_rank=last_rank, pads=pads)
    return tuple(_made(tensors[role]) if role in tensors else None for role in names)


def _made(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as its kernel takes it, and no parameter: the engine takes its attributes over."""
    view = kernel_view(tensor)
    if not isinstance(view, torch.nn.Parameter):
        return view
    plain = view.detach()
    if getattr(view, "is_shuffled", False):
        plain.is_shuffled = True  # type: ignore[attr-defined]
    return plain

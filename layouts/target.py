"""What ``apply`` works on: a dict of tensors or a module with the role attributes, under any engine's names."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any, Final

import torch

from preshuffle.registry import LayoutError
from preshuffle.registry.words import ROLES, Role

ALIASES: Final[dict[Role, tuple[str, ...]]] = {
    "w13_bias": ("w13_weight_bias",),
    "w2_bias": ("w2_weight_bias",),
    "w13_weight_scale": ("w13_weight_scale_inv",),
    "w2_weight_scale": ("w2_weight_scale_inv",),
}
"""What engines call a role besides its name (SGLang's biases and fp8 block scales)."""

Target = MutableMapping[str, torch.Tensor] | torch.nn.Module


class RoleTensors:
    """The role tensors of a target, read and written in one way."""

    def __init__(self, target: Target) -> None:
        """Find the roles.

        Raises:
            LayoutError: the target is of another kind, a role stands there twice, or a value is no tensor.
        """
        if not isinstance(target, torch.nn.Module | MutableMapping):
            raise LayoutError(f"a {type(target).__name__} is no target; valid: a module, or a dict of tensors")
        self.target = target
        self.names: dict[Role, str] = {}
        for role in ROLES:
            found = [name for name in (role, *ALIASES.get(role, ())) if self._get(name) is not None]
            if len(found) > 1:
                raise LayoutError(f"{role} stands there twice: {' and '.join(found)}")
            if found:
                value = self._get(found[0])
                if not isinstance(value, torch.Tensor):
                    raise LayoutError(f"{found[0]} is a {type(value).__name__}; a tensor is needed")
                self.names[role] = found[0]

    def _get(self, name: str) -> Any:
        if isinstance(self.target, torch.nn.Module):
            return getattr(self.target, name, None)
        return self.target.get(name)

    def check_roles(self, wanted: Iterable[Role]) -> None:
        """Check that just the wanted roles are there.

        Raises:
            LayoutError: names what is missing and what is too much.
        """
        needed = list(wanted)
        problems = [f"missing: {', '.join(role for role in needed if role not in self.names)}"]
        extra = [name for role, name in self.names.items() if role not in needed]
        if isinstance(self.target, MutableMapping):
            known = {name for role in ROLES for name in (role, *ALIASES.get(role, ()))}
            extra += [name for name in self.target if name not in self.names.values() and name not in known]
        problems.append(f"not part of the decision: {', '.join(extra)}")
        told = [problem for problem in problems if not problem.endswith(": ")]
        if told:
            raise LayoutError(f"the target's tensors do not fit; {'; '.join(told)}")

    def __getitem__(self, role: Role) -> torch.Tensor:
        """Return a role's tensor."""
        tensor: torch.Tensor = self._get(self.names[role])
        return tensor

    def __setitem__(self, role: Role, tensor: torch.Tensor) -> None:
        """Put a tensor in a role's place; a parameter stays one, with the attributes that it had."""
        name = self.names[role]
        if not isinstance(self.target, torch.nn.Module):
            self.target[name] = tensor
            return
        old = getattr(self.target, name)
        if tensor is old:
            return
        if isinstance(old, torch.nn.Parameter):
            new = torch.nn.Parameter(tensor, requires_grad=False)
            new.__dict__.update(old.__dict__)
            new.__dict__.update(tensor.__dict__)
            # a parameter of another dtype or size cannot take the old one's place in any other way
            del self.target._parameters[name]
            self.target.register_parameter(name, new)
        elif name in self.target._buffers:
            self.target._buffers[name] = tensor
        else:
            setattr(self.target, name, tensor)

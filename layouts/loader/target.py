"""Targets of ``apply``: a dict of tensors or a module.

Tensors stand under their roles' names or any engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from functools import lru_cache, partial
from math import prod
from typing import Any

import torch

from preshuffle.layouts.tensors import check_memory
from preshuffle.registry import Decision, LayoutError, Registry, TensorDecision
from preshuffle.registry.base.words import ROLES, Role
from preshuffle.registry.entries import SECOND_LEVEL
from preshuffle.registry.loading import Book

_INPUT = "_input_scale"
Target = MutableMapping[str, torch.Tensor] | torch.nn.Module


class RoleTensors:
    """Uniform access to a target's tensors by role."""

    def __init__(self, target: Target) -> None:
        """Find the target's tensors by role.

        Raises:
            LayoutError: the target is of another kind, a role stands there twice, or a value is no tensor.
        """
        if not isinstance(target, torch.nn.Module | MutableMapping):
            raise LayoutError(f"a {type(target).__name__} is no target; valid: a module, or a dict of tensors")
        self.target = target
        self._get: Callable[[str], Any] = (
            partial(_attribute, target) if isinstance(target, torch.nn.Module) else target.get
        )
        self.names: dict[Role, str] = {}
        self._made: dict[Role, torch.Tensor] = {}
        names, seconds = _names_of(_present_names(target))
        self._seconds = dict(seconds)
        for role, found in names.items():
            if len(found) > 1:
                raise LayoutError(f"{role} stands there twice: {' and '.join(found)}")
            value = self._get(found[0])
            if not isinstance(value, torch.Tensor):
                raise LayoutError(f"{found[0]} is a {type(value).__name__}; a tensor is needed")
            if value.layout != torch.strided:
                raise LayoutError(f"{found[0]} is {value.layout}; a dense tensor is needed")
            check_memory(found[0], value)
            self.names[role] = found[0]

    def make_defaults(self, decision: Decision) -> None:
        """Make the scales that an engine makes itself, in new memory.

        The checkpoint's own scale, under the role's name or as its second level, becomes what is folded into it.
        """
        for role, decided in decision.tensors.items():
            if decided.default is None or not self._left_out(role, decided):
                continue
            name = self.names.setdefault(role, role)
            second = self._seconds.setdefault(role, name)
            device = self._get(second).device
            self._made[role] = torch.full(decided.logical_shape, decided.default, device=device)

    def _left_out(self, role: Role, decided: TensorDecision) -> bool:
        """Return whether a target has only what is folded into a scale."""
        if role not in self.names:
            return role in self._seconds
        shape, halves = tuple(self[role].shape), 2 if decided.order else 1
        one_for_each = bool(shape) and shape[0] == decided.logical_shape[0] and prod(shape[1:]) in (1, halves)
        return role not in self._seconds and one_for_each and decided.logical_shape[1] > halves

    def is_default(self, role: Role) -> bool:
        """Return whether a role's tensor was made and is in no checkpoint."""
        return role in self._made

    def second(self, role: Role) -> torch.Tensor | None:
        """Return a role's second-level scale, or None."""
        value = self._get(self._seconds[role]) if role in self._seconds else None
        if value is not None and not isinstance(value, torch.Tensor):
            raise LayoutError(f"{self._seconds[role]} is a {type(value).__name__}; a tensor is needed")
        return value

    def check_roles(self, wanted: Iterable[Role], folded: Iterable[Role] = ()) -> None:
        """Check that exactly the wanted roles are present.

        Args:
            wanted: the roles.
            folded: those whose second-level scale belongs to the target, too.

        Scales of inputs may both be left out: a checkpoint whose activations are quantized on the fly has none. Where
        the decision has none, a layer may hold them: its kernel does not get them, and they stay as they are.

        Raises:
            LayoutError: names what is missing and what is too much.
        """
        needed = list(wanted)
        dynamic = not any(role.endswith(_INPUT) for role in self.names)
        missing = [role for role in needed if role not in self.names and not (dynamic and role.endswith(_INPUT))]
        problems = [f"missing: {', '.join(missing)}"]
        takes_inputs = any(role.endswith(_INPUT) for role in needed)
        extra = [
            name
            for role, name in self.names.items()
            if role not in needed and (takes_inputs or not role.endswith(_INPUT))
        ]
        if isinstance(self.target, MutableMapping):
            seconds = {self._seconds[role] for role in folded if role in self._seconds}
            known = {*ROLES, *self.names.values(), *seconds}
            extra += [name for name in self.target if name not in known]
        problems.append(f"not part of the decision: {', '.join(extra)}")
        unmet = [problem for problem in problems if not problem.endswith(": ")]
        if unmet:
            raise LayoutError(f"the target's tensors do not fit; {'; '.join(unmet)}")

    def present(self, wanted: Iterable[Role]) -> list[Role]:
        """Return the wanted roles that the target has, in order."""
        return [role for role in wanted if role in self.names]

    def values(self) -> list[torch.Tensor]:
        """Return the target's tensors."""
        return [self[role] for role in self.names]

    def __getitem__(self, role: Role) -> torch.Tensor:
        """Return a role's tensor."""
        tensor: torch.Tensor = self._made[role] if role in self._made else self._get(self.names[role])
        return tensor

    def __setitem__(self, role: Role, tensor: torch.Tensor) -> None:
        """Replace a role's tensor.

        A parameter stays one, with the attributes that it had.
        """
        name = self.names[role]
        self._made.pop(role, None)
        if not isinstance(self.target, torch.nn.Module):
            self.target[name] = tensor
            return
        old = getattr(self.target, name, None)
        if tensor is old:
            return
        if isinstance(old, torch.nn.Parameter):
            new = torch.nn.Parameter(tensor, requires_grad=False)
            new.__dict__.update(old.__dict__)
            new.__dict__.update(tensor.__dict__)
            self.target._parameters[name] = new  # in its place: the order of a module's parameters stays
        elif name in self.target._buffers:
            self.target._buffers[name] = tensor
        else:
            setattr(self.target, name, tensor)


def _present_names(target: Target) -> frozenset[str]:
    """Return which names of roles a target has, in any engine's words."""
    known = _known_names()
    if not isinstance(target, torch.nn.Module):
        return frozenset(name for name in target if name in known and target.get(name) is not None)
    names: Iterable[str] = known
    kind = type(target)
    if kind.__getattr__ is torch.nn.Module.__getattr__:  # it raises for each name that is not there: slow
        places = (vars(target), target._parameters, target._buffers, target._modules)
        names = [name for name in names if any(name in place for place in places) or hasattr(kind, name)]
    return frozenset(name for name in names if _attribute(target, name) is not None)


# Process-wide: a pure function of names that every layer repeats.
@lru_cache(maxsize=256)
def _names_of(present: frozenset[str]) -> tuple[Mapping[Role, tuple[str, ...]], Mapping[str, str]]:
    """Return the names of each role that is present, and of its second-level scale."""
    taken = _engine_names(present)
    claimed = {name for names in taken.values() for name in names}
    names: dict[Role, tuple[str, ...]] = {}
    seconds: dict[str, str] = {}
    for role in ROLES:
        own = (role,) if role in present and role not in claimed else ()
        if found := (*own, *taken.get(role, ())):
            names[role] = found
        second = f"{role}{SECOND_LEVEL}"
        name = next(iter(taken.get(second, (second,))))
        if name in present:
            seconds[role] = name
    return names, seconds


def _engine_names(present: frozenset[str]) -> dict[str, list[str]]:
    """Return engines' names by role, of name sets that are complete."""
    taken: dict[str, list[str]] = {}
    for names, needed in _packaged_name_sets():
        if needed <= present:
            for role, name in names.items():
                if name not in taken.setdefault(role, []):
                    taken[role].append(name)
    return taken


def _attribute(module: torch.nn.Module, name: str) -> Any:
    return getattr(module, name, None)


def folded_roles(decision: Decision) -> tuple[Role, ...]:
    """Return the roles that a second-level scale is folded into."""
    return tuple(role for role, decided in decision.tensors.items() if {"fold", "fold_max"} & set(decided.steps))


def role_names(role: Role, book: Book) -> tuple[str, ...]:
    """Return every name of a role in engines' layers.

    Its own comes first.
    """
    return tuple(dict.fromkeys((role, *(names[role] for names in _name_sets(book) if role in names))))


# Process-wide: the packaged book is.
@lru_cache(maxsize=1)
def _packaged_name_sets() -> tuple[tuple[Mapping[str, str], frozenset[str]], ...]:
    return tuple((names, frozenset(names.values())) for names in _name_sets(Registry.default().book))


# Process-wide: the packaged book is.
@lru_cache(maxsize=1)
def _known_names() -> frozenset[str]:
    """Return every name under which a role or its second-level scale may stand."""
    own = {name for role in ROLES for name in (role, f"{role}{SECOND_LEVEL}")}
    return frozenset(own).union(*(needed for _, needed in _packaged_name_sets()))


def _name_sets(book: Book) -> tuple[Mapping[str, str], ...]:
    """Return the book's name sets, w13's and w2's apart.

    A layer may have one of them only.
    """
    parts = [
        {role: name for role, name in entry.names.items() if role.startswith(prefix)}
        for entry in book.entries["target_names"].values()
        for prefix in ("w13", "w2")
    ]
    return tuple(part for part in parts if part)

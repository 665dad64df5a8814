"""Entries on calls: kernel entry points and engines' tensor names."""

from typing import Self

from pydantic import Field, model_validator

from preshuffle.registry.base.errors import PlacedError
from preshuffle.registry.base.frozen import Frozen, FrozenDict
from preshuffle.registry.base.words import ROLES, CallBackend

SECOND_LEVEL = "_2"
"""Behind a scale's role: the scale of that scale, which the step ``fold`` multiplies into it."""


class FunctionEntry(Frozen):
    """An entry point of MoE kernels.

    Attributes:
        backends: whose kernels may run behind it.
        doweight_stage1: whether it puts the router's weight on the input itself.
        families: kernel families that run behind it, where AITER's dispatch does not choose them: what they read is
            what it reads.
        module: where Python imports it from; None where that is not known.
        inputs: its arguments that are neither tensors of the layer nor decided: hidden states, routing.
        arguments: by role, or by field of a decision's call, what it calls that argument; what is left out it has no
            argument for. Empty where its arguments are not known.
    """

    id: str
    title: str = ""
    backends: tuple[CallBackend, ...]
    doweight_stage1: bool = False
    families: tuple[str, ...] = ()
    module: str | None = None
    inputs: tuple[str, ...] = ()
    arguments: FrozenDict[str, str] = Field(default_factory=FrozenDict)
    evidence: tuple[str, ...] = ()


class TargetNamesEntry(Frozen):
    """Attribute names that an engine's layer has for roles.

    Attributes:
        engine: whose they are.
        names: role (or a scale's role with ``_2`` behind it, its second level) to the attribute's name.
        recipes: by which its layers are laid out that have these names; all of the engine's if empty.
        not_producers: of checkpoints for which that does not hold, since the engine reads them by other code.
    """

    id: str
    engine: str = ""
    names: FrozenDict[str, str]
    recipes: tuple[str, ...] = ()
    not_producers: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _are_roles(self) -> Self:
        valid = (*ROLES, *(f"{role}{SECOND_LEVEL}" for role in ROLES if role.endswith("_weight_scale")))
        for name in self.names:
            if name not in valid:
                raise PlacedError(("names", name), f"unknown role {name!r}; valid: {', '.join(valid)}")
        return self

"""Arguments of a kernel's function for a prepared layer: tensors and scalars."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import reduce
from typing import Any

import torch

from preshuffle.layouts.loader import AITER_TAG, RoleTensors, Target
from preshuffle.layouts.stamps import stamp_of
from preshuffle.layouts.tensors import ACCEPTED_DTYPES
from preshuffle.registry import Decision, LayoutError, Registry
from preshuffle.registry.base.words import ROLES, Role
from preshuffle.registry.kernels import Argument, Signature, takes
from preshuffle.registry.loading import Book


def call_arguments(
    layer: Target,
    decision: Decision,
    *,
    function: str = "aiter.fused_moe",
    aiter: str | None = None,
    version: str | None = None,
    parameters: Collection[str] | None = None,
    registry: Registry | None = None,
    package: object = None,
) -> dict[str, Any]:
    """Return what to pass to a function for a laid-out layer.

    All but tokens and their experts.

    Tensors are passed under the dtype and the shape that the kernel takes, with AITER's tag on the very object; biases
    only where the decided call has them. Enumerators are AITER's own where this process has imported it.

    Args:
        layer: what the decision was applied to.
        decision: that decision.
        function: a signature of the book: ``aiter.fused_moe``, ``vllm.fused_moe``, ….
        aiter: AITER's version; None for the newest known.
        version: the engine's, where the function is an engine's.
        parameters: names that the function at hand takes (``inspect.signature``); they count before its version.
        registry: whose book's signatures; those of the packaged book by default.
        package: the function's own, for its enumerators; the imported module of the name in the book by default.

    Raises:
        LayoutError: the function runs something else, or this release has no argument, or its enumeration no member,
            for what the call needs.
    """
    book = (registry or Registry.default()).book
    signature = book.signatures.find(function)
    scalars = decision.call.kwargs(
        function, aiter=aiter, version=version, parameters=parameters, signatures=book.signatures
    )
    tensors = RoleTensors(layer)
    release = aiter if signature.owner == "aiter" else version
    passed: dict[str, Any] = {}
    for name, argument in signature.arguments.items():
        role = next((role for role in ROLES if role == argument.carries), None)
        if role is not None and role in decision.tensors and role in tensors.names and _is_passed(role, decision):
            if takes(signature, name, release, parameters) is False:
                raise LayoutError(f"{signature.id} takes no {name}; the decided call passes {role}")
            passed[name] = kernel_view(tensors[role])
    return {**passed, **_live(scalars, signature, _Words(book, package))}


def kernel_view(tensor: torch.Tensor) -> torch.Tensor:
    """Return a stamped tensor as its kernel takes it.

    A view under the dtype that AITER recognises and in the shape that is passed, tagged where its stamp says so; the
    tensor itself where it is that already, or has no stamp.
    """
    stamp = stamp_of(tensor)
    if stamp is None or stamp.state != "applied":
        return tensor
    wanted = ACCEPTED_DTYPES[stamp.dtype][0]
    seen = tensor
    if seen.dtype != wanted and seen.dtype not in (torch.uint8, wanted) and seen.element_size() != wanted.itemsize:
        return tensor
    if seen.dtype != wanted and stamp.dtype != "e8m0":
        seen = seen.detach().view(wanted)
    if tuple(seen.shape) != stamp.tensor_shape and seen.is_contiguous():
        seen = seen.detach().view(stamp.tensor_shape)
    if stamp.is_shuffled and not getattr(seen, AITER_TAG, False):
        setattr(seen, AITER_TAG, True)
    return seen


def _is_passed(role: Role, decision: Decision) -> bool:
    return decision.call.bias or not role.endswith("_bias")


@dataclass(frozen=True, slots=True)
class _Words:
    """Source of enumerators: a package, or modules that the book names."""

    book: Book
    package: object

    def member(self, enumeration: str, value: IntEnum) -> Any:
        """Return the live enumerator of a name, if its module is imported.

        Else the book's own.

        Raises:
            LayoutError: the live enumeration has no such member.
        """
        live = _imported(self.book.entries["enumerations"][enumeration].path, self.package)
        if live is None:
            return value
        if not hasattr(live, value.name):
            raise LayoutError(f"this AITER has no {enumeration}.{value.name}")
        return getattr(live, value.name)


def _live(scalars: Mapping[str, Any], signature: Signature, words: _Words) -> dict[str, Any]:
    """Return scalars with AITER's own enumerators, engines' own words and torch's dtypes."""
    live: dict[str, Any] = {}
    for name, value in scalars.items():
        argument = signature.arguments.get(name)
        if isinstance(value, Mapping) and (argument is None or argument.under is not None):
            live[name] = _live(value, signature, words)
        else:
            live[name] = _value(argument, value, words)
    return live


def _value(argument: Argument | None, value: Any, words: _Words) -> Any:
    if argument is None:
        return value
    if argument.form == "dtype" and isinstance(value, str):
        return ACCEPTED_DTYPES[_TYPED.get(value, value)][0]  # type: ignore[index]
    if argument.form == "enumerator" and argument.enumeration is not None:
        return words.member(argument.enumeration, value)
    spelled = _imported(argument.type) if argument.type is not None else None
    return value if spelled is None else spelled(value)


def _imported(path: str, package: object = None) -> Any:
    """Return what ``module:name`` names, in a package where one is given.

    None unless this process has imported the module.
    """
    module, _, name = path.partition(":")
    owner = sys.modules.get(module) if package is None else package
    return reduce(lambda found, part: getattr(found, part, None), name.split("."), owner)


_TYPED = {"fp8": "fp8_e4m3fn"}

"""Arguments of one call by name, wherever they stood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from preshuffle.registry import LayoutError
from preshuffle.registry.kernels import Argument, Signature, takes

Passed = tuple[str, Argument | None, Any]
"""An argument's name, what the book says of it (None: nothing), and the value."""


def passed_arguments(
    signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], release: str | None
) -> Iterator[Passed]:
    """Yield every argument of a call, those inside a mapping too.

    Args:
        signature: of the function that was called.
        args: positional arguments.
        kwargs: named ones.
        release: of the function's owner: which arguments it has tells which positional one is which.

    Raises:
        LayoutError: there are more positional arguments than the function has, or one is passed twice.
    """
    for name, value in {**_named(signature, args, release), **_checked(signature, args, kwargs, release)}.items():
        inner = {key for key, argument in signature.arguments.items() if argument.under == name}
        if inner and isinstance(value, Mapping):
            for key, item in value.items():
                yield key, signature.arguments[key] if key in inner else None, item
        elif not inner:
            argument = signature.arguments.get(name)
            yield name, argument if argument is not None and argument.under is None else None, value


def _named(signature: Signature, args: Sequence[Any], release: str | None) -> dict[str, Any]:
    names = [
        name
        for name, argument in signature.arguments.items()
        if argument.under is None and takes(signature, name, release) is not False
    ]
    if len(args) > len(names):
        raise LayoutError(f"{signature.id} takes {len(names)} arguments, found {len(args)} without a name")
    return dict(zip(names, args, strict=False))


def _checked(
    signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], release: str | None
) -> Mapping[str, Any]:
    twice = _named(signature, args, release).keys() & kwargs.keys()
    if twice:
        raise LayoutError(f"{signature.id}: {', '.join(sorted(twice))} is passed twice")
    return kwargs

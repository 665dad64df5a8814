"""Arguments that a release of a function's owner takes."""

from __future__ import annotations

from collections.abc import Collection

from preshuffle.registry.base.versions import on_the_way_to, version_key
from preshuffle.registry.kernels.aiter_versions.behaviour import is_newest
from preshuffle.registry.kernels.signatures.signature import Argument, Signature

AITER = "aiter"


def takes(
    signature: Signature, name: str, version: str | None = None, parameters: Collection[str] | None = None
) -> bool | None:
    """Return whether a function takes an argument.

    None for a development build of the very release that begins or ends it.

    Args:
        signature: whose argument it is.
        name: the argument's.
        version: of the function's owner; None where it is not known: the newest known one is meant.
        parameters: names that the function at hand takes (``inspect.signature``); they count before the version.

    Raises:
        InvalidVersionError: ``version`` is not a version.
    """
    argument = signature.arguments[name]
    if parameters is not None:
        return (argument.under or name) in parameters
    if version is None or (signature.owner == AITER and is_newest(version)):
        return argument.until is None
    if any(bound is not None and on_the_way_to(version, bound) for bound in (argument.since, argument.until)):
        return None
    key = version_key(version)
    after = argument.since is None or version_key(argument.since) <= key
    return after and (argument.until is None or key < version_key(argument.until))


def span_of(argument: Argument) -> str:
    """Return in words which releases take an argument."""
    parts = [f"since {argument.since}"] if argument.since else []
    parts += [f"until {argument.until}"] if argument.until else []
    return ", ".join(parts) or "in every known release"

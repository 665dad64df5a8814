"""Lint of signatures: what they refer to, and releases of arguments."""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.kernels import Signature
from preshuffle.registry.loading import Book

_AITER = "aiter"


def signature_problems(book: Book) -> Iterator[Problem]:
    """Yield signatures that name something unknown, or contradict AITER's features."""
    for signature in book.signatures.by_id.values():
        yield from _names(book, signature)
        yield from _releases(book, signature)


def _names(book: Book, signature: Signature) -> Iterator[Problem]:
    place = book.places["signatures", signature.id]
    if signature.function not in book.entries["functions"]:
        yield place.unknown("unknown entry point", signature.function, book.entries["functions"], "function")
    if signature.calls is not None and signature.calls not in book.signatures.by_id:
        yield place.unknown("unknown signature", signature.calls, book.signatures.by_id, "calls")
    if place.packaged and signature.owner != _AITER and signature.owner not in book.engines:
        yield place.unknown("unknown engine", signature.owner, book.engines, "owner")
    for name, argument in signature.arguments.items():
        if argument.enumeration is not None and argument.enumeration not in book.signatures.enumerations:
            path, known = ("arguments", name, "enumeration"), book.signatures.enumerations
            yield place.unknown("unknown enumeration", argument.enumeration, known, *path)


def _releases(book: Book, signature: Signature) -> Iterator[Problem]:
    """Yield arguments of AITER's that a feature dates otherwise."""
    module, _, function = signature.path.partition(":")
    for feature in book.features.values():
        probe = feature.probe
        if probe is None or probe.parameter is None or (probe.module, probe.name) != (module, function):
            continue
        argument = signature.arguments.get(probe.parameter)
        if argument is not None and argument.since != feature.since:
            yield book.places["signatures", signature.id].problem(
                f"{probe.parameter} is there since {argument.since}; feature {feature.id} says {feature.since}",
                *("arguments", probe.parameter),
            )

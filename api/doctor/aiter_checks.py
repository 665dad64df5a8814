"""What the AITER that is installed here can do: read from its own sources, nothing of it is imported or believed."""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.api.doctor.check import Check
from preshuffle.registry.kernels import TableError
from preshuffle.registry.layer import features_of, installed_aiter
from preshuffle.registry.loading import Book


def check_features(book: Book) -> Iterator[Check]:
    """List the book's features that this AITER has and lacks, and those that its version says wrongly."""
    try:
        here = installed_aiter(book)
    except TableError:  # that none is here is said elsewhere
        return
    known, told = features_of(book, here.version, here.features), features_of(book, here.version)
    for name, wanted in (("aiter has", True), ("aiter lacks", False), ("aiter may have", None)):
        found = [feature for feature, has in known.has.items() if has is wanted]
        if found:
            yield Check(name=name, status="ok" if wanted else "info", detail=", ".join(found))
    odd = [name for name, seen in here.features.items() if told.has[name] not in (seen, None)]
    if odd:
        listed = ", ".join(f"{'' if here.features[name] else 'no '}{name}" for name in odd)
        detail = f"its version {here.version} says otherwise than its sources, which show {listed}"
        yield Check(name="aiter version", status="warning", detail=detail, fix="resolve with --aiter installed")

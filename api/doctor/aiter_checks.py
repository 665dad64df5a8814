"""Features of the installed AITER, read from its sources without importing it."""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.api.doctor.check import Check
from preshuffle.registry.kernels import TableError
from preshuffle.registry.layer import features_of, installed_aiter
from preshuffle.registry.loading import Book


def check_features(book: Book) -> Iterator[Check]:
    """List features that AITER has and lacks, and contradictions to its version."""
    try:
        installed = installed_aiter(book)
    except TableError:  # check_aiter reports that none is installed
        return
    probed = features_of(book, installed.version, installed.features)
    for name, state in (("aiter has", True), ("aiter lacks", False), ("aiter may have", None)):
        features = [feature for feature, has in probed.has.items() if has is state]
        if features:
            yield Check(name=name, status="ok" if state else "info", detail=", ".join(features))
    released = features_of(book, installed.version)
    contradictions = [name for name, has in installed.features.items() if released.has[name] not in (has, None)]
    if contradictions:
        shown = ", ".join(f"{'' if installed.features[name] else 'no '}{name}" for name in contradictions)
        detail = f"version {installed.version} contradicts its sources, which show {shown}"
        yield Check(name="aiter version", status="warning", detail=detail, fix="resolve with --aiter installed")

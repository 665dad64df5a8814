"""Requirements of a distribution's extras, read from its metadata."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement


def extra_requirements(distribution: str, extra: str) -> Iterator[Requirement]:
    """Yield what an extra adds to a distribution's own requirements here.

    Nothing where the distribution is not installed.
    """
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires(distribution) or ()
    except metadata.PackageNotFoundError:
        return
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            yield requirement

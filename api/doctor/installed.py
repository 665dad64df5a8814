"""Installed distributions, read from their metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

_SEPARATORS = re.compile(r"[-_.]+")


@dataclass(frozen=True, slots=True)
class Installed:
    """Installed distributions by normalised name; a name may occur more than once."""

    distributions: Mapping[str, Sequence[metadata.Distribution]]

    @staticmethod
    def here() -> Installed:
        """Read the metadata of all distributions on ``sys.path``."""
        by_name: dict[str, list[metadata.Distribution]] = {}
        for distribution in metadata.distributions():
            name = distribution.metadata["Name"]
            if name:
                by_name.setdefault(normalised(name), []).append(distribution)
        return Installed(by_name)

    def version(self, name: str) -> str | None:
        """Return the version that Python would import, or None."""
        distributions = self.distributions.get(normalised(name))
        return distributions[0].version if distributions else None


def normalised(name: str) -> str:
    """Return a distribution's name as indexes compare it."""
    return _SEPARATORS.sub("-", name).lower()

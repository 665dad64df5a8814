"""Overlays of the book that settings and options name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def filled_overlays(names: Sequence[str]) -> list[str]:
    """Return the overlays without empty folders.

    A folder may be empty on purpose: a mounted ConfigMap that is optional, or that nobody has filled yet. One with
    other files and no YAML stays, as a mistake; so does one that is not there.
    """
    return [name for name in names if not _is_empty_folder(Path(name))]


def _is_empty_folder(path: Path) -> bool:
    """Whether a folder holds nothing, or only what Kubernetes puts into every mount (``..data``)."""
    try:
        return path.is_dir() and all(entry.name.startswith(".") for entry in path.iterdir())
    except OSError:
        return False

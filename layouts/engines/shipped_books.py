"""Books that engines ship by the entry point ``preshuffle.books``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from preshuffle.registry import BookError, Registry
from preshuffle.registry.base.errors import Problem

GROUP = "preshuffle.books"


def shipped_books() -> tuple[Path, ...]:
    """Return the folders of all books that installed packages ship, by name.

    An entry point ``acme = "acme_engine.book"`` means the folder ``book`` of the package ``acme_engine``. Nothing of
    the package is imported.

    Raises:
        BookError: an entry point names no folder.
    """
    return _shipped(tuple(sys.path))


def registry_here(overlays: Iterable[Path | str] = ()) -> Registry:
    """Return the registry of packaged book, shipped ones and overlays.

    Later ones count before earlier ones; loaded once per process for the same folders.

    Raises:
        BookError: a book does not load; names file, line and column.
    """
    folders = (*shipped_books(), *map(Path, overlays))
    return _loaded(folders) if folders else Registry.default()


# Process-wide: reading the metadata of all installed packages takes milliseconds, for every layer of a model.
@lru_cache(maxsize=4)
def _shipped(_: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the folders, once for each list of places where packages are installed."""
    points = sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name)
    return tuple(_folder(point) for point in points)


# Process-wide: installed packages and folders do not change under a running engine.
@lru_cache(maxsize=4)
def _loaded(folders: tuple[Path, ...]) -> Registry:
    return Registry.load(folders)


def _folder(point: metadata.EntryPoint) -> Path:
    package, *inner = point.value.replace(":", ".").split(".")
    spec = PathFinder.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    for place in places:
        folder = Path(place, *inner)
        if folder.is_dir():
            return folder
        if folder.with_suffix(".yaml").is_file():
            return folder.with_suffix(".yaml")
    raise BookError([Problem(f"{GROUP}: {point.name}", 0, 0, f"{point.value} names no folder of an installed package")])

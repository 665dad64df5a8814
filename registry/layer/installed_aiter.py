"""Installed AITER: its version, and features found in its source.

Nothing of it is imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from preshuffle.registry.base.versions import InvalidVersionError, version_key
from preshuffle.registry.entries import FeatureProbe
from preshuffle.registry.kernels import installed_package
from preshuffle.registry.loading import Book

_LARGEST = 8 << 20
_ANY = "**"


@dataclass(frozen=True, slots=True)
class InstalledAiter:
    """An AITER on this machine.

    Attributes:
        folder: its package.
        version: None for a source tree without metadata.
        features: features that its sources show or lack; those that nothing shows are left out.
    """

    folder: Path
    version: str | None
    features: Mapping[str, bool]

    def query_fields(self) -> dict[str, Any]:
        """Return it as fields of a ``Query``."""
        known = {} if self.version is None else {"aiter": self.version}
        return {**known, "aiter_features": dict(self.features)}


def installed_aiter(book: Book) -> InstalledAiter:
    """Inspect the installed AITER.

    Args:
        book: whose features; an entry's ``probe`` says how each is seen.

    Raises:
        TableError: no AITER is installed, or only the unrelated PyPI distribution ``aiter``.

    Example:
        >>> from preshuffle.registry import Query, Registry
        >>> registry = Registry.default()
        >>> here = installed_aiter(registry.book)  # doctest: +SKIP
        >>> Query(model="openai/gpt-oss-120b", arch="gfx950", **here.query_fields())  # doctest: +SKIP
    """
    folder, version = installed_package()
    return InstalledAiter(folder, _readable(version), probe_sources(book, folder))


def probe_sources(book: Book, folder: Path) -> dict[str, bool]:
    """Return the features that an AITER's sources show (True) or lack (False).

    A feature is left out where its module is not there or cannot be read, or where a function takes any arguments.

    Args:
        book: whose features.
        folder: AITER's package: the folder that holds ``fused_moe.py``.
    """
    found = {name: _seen(entry.probe, folder) for name, entry in book.features.items() if entry.probe}
    return {name: seen for name, seen in found.items() if seen is not None}


@dataclass(frozen=True, slots=True)
class _Source:
    """A module's text, and what it defines: parameters by function, None for a name that is no function of its own."""

    text: str
    names: Mapping[str, frozenset[str] | None]


def _seen(probe: FeatureProbe, folder: Path) -> bool | None:
    source = _source(folder, probe.module)
    if source is None:
        return None
    if probe.text is not None:
        return probe.text in source.text
    name = str(probe.name)
    if name not in source.names:
        return None if "*" in source.names else False  # it may come in with a star
    if probe.parameter is None:
        return True
    parameters = source.names[name]
    if parameters is None or (probe.parameter not in parameters and _ANY in parameters):
        return None
    return probe.parameter in parameters


def _source(folder: Path, module: str) -> _Source | None:
    parts = module.split(".")[1:]
    places = [folder.joinpath(*parts, "__init__.py")]
    if parts:
        places.insert(0, folder.joinpath(*parts[:-1], f"{parts[-1]}.py"))
    place = next((place for place in places if place.is_file()), None)
    if place is None:
        return None
    try:
        stat = place.stat()
        return None if stat.st_size > _LARGEST else _read(place, stat.st_mtime_ns, stat.st_size)
    except OSError:
        return None


@lru_cache(maxsize=16)
def _read(place: Path, changed: int, size: int) -> _Source | None:
    """Read a module; its time and size are part of the key, so that another AITER in its place is seen."""
    try:
        text = place.read_bytes().decode("utf-8")
        tree = ast.parse(text)
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return _Source(text, dict(_names(tree.body)))


def _names(body: Iterable[ast.stmt]) -> Iterator[tuple[str, frozenset[str] | None]]:
    """Yield what statements define, those under ``if``, ``try`` and ``with`` too."""
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield statement.name, _parameters(statement.args)
            case ast.ClassDef():
                yield statement.name, None
            case ast.Import() | ast.ImportFrom():
                yield from ((alias.asname or alias.name.partition(".")[0], None) for alias in statement.names)
            case ast.Assign():
                yield from ((target.id, None) for target in statement.targets if isinstance(target, ast.Name))
            case ast.If() | ast.Try() | ast.With():
                for inner in ("body", "orelse", "finalbody"):
                    yield from _names(getattr(statement, inner, ()))
                for handler in getattr(statement, "handlers", ()):
                    yield from _names(handler.body)


def _parameters(arguments: ast.arguments) -> frozenset[str]:
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return frozenset({argument.arg for argument in named} | ({_ANY} if arguments.kwarg else set()))


def _readable(version: str | None) -> str | None:
    """Return a version that a query takes; a source tree may call itself anything."""
    try:
        return version if version is None or version_key(version) else None
    except InvalidVersionError:
        return None

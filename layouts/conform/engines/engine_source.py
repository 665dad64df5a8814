"""An engine's sources: installed, a checkout, or a wheel file.

Nothing of them is imported.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from preshuffle.layouts.conform.aiter_source import unpack_wheel, version_beside
from preshuffle.layouts.conform.engines.engine_table import EngineTable, driven_engines, engine_table
from preshuffle.layouts.conform.errors import ConformError
from preshuffle.registry.base.versions import InvalidVersionError, version_key

_FILES: Final = r"{package}/.*\.(py|json|ya?ml|txt)|[^/]+\.dist-info/METADATA"


class NoEngineError(ConformError):
    """Engine that is not installed in the version asked for."""


@dataclass(frozen=True, slots=True)
class EngineSource:
    """Sources of one engine.

    Attributes:
        table: what is known of the engine.
        root: the folder that holds its package.
        version: as its metadata says; None where it has none.
    """

    table: EngineTable
    root: Path
    version: str | None

    @property
    def name(self) -> str:
        """Name and version, as queries have them."""
        return f"{self.table.name}@{self.version}" if self.version else self.table.name


@dataclass(frozen=True, slots=True)
class MissingEngine:
    """Engine that cannot be run here.

    Attributes:
        name: as it was asked for, without a folder.
        why: what is missing.
    """

    name: str
    why: str


@contextmanager
def find_engine(named: str) -> Iterator[EngineSource | MissingEngine]:
    """Find an engine; one that is not here is told as such.

    Args:
        named: ``NAME``, ``NAME@VERSION``, ``NAME@FOLDER`` or ``NAME@WHEEL``.

    Raises:
        ConformError: the folder or wheel cannot be this engine.
    """
    name, _, place = named.partition("@")
    if name not in driven_engines():
        known = ", ".join(driven_engines())
        yield MissingEngine(name, f"nothing here drives its code; engines whose code is driven: {known}")
        return
    with ExitStack() as stack:
        try:
            found: EngineSource | MissingEngine = stack.enter_context(open_engine(engine_table(name), place))
        except NoEngineError as error:
            found = MissingEngine(name, str(error))
        yield found


@contextmanager
def open_engine(table: EngineTable, place: str = "") -> Iterator[EngineSource]:
    """Find an engine; unpack a wheel into a temporary folder.

    Args:
        table: of which engine.
        place: empty for the installed one, else its version, a folder that holds its package, or a ``.whl`` file.

    Raises:
        NoEngineError: it is not installed, or another version is.
        ConformError: the folder or wheel cannot be this engine.
    """
    if Path(place).is_file():
        with tempfile.TemporaryDirectory(prefix="preshuffle-wheel-") as folder:
            unpack_wheel(Path(place), Path(folder), re.compile(_FILES.format(package=table.package)))
            yield _source(table, Path(folder), "the wheel")
    elif place and Path(place).is_dir():
        yield _source(table, Path(place).resolve(), place)
    elif not place or _key(place) is not None:
        yield _installed(table, place)
    else:
        raise ConformError(
            f"{place}: no such folder or wheel; valid: a version, a folder with {table.package}/, a .whl file"
        )


def _source(table: EngineTable, place: Path, shown: str) -> EngineSource:
    root = place if (place / table.package).is_dir() else place / table.checkout
    if not (root / table.package / table.entry).is_file():
        raise ConformError(f"{shown} holds no {table.package}/{table.entry}: is it {table.title}?")
    version = version_beside(root, table.distribution, table.package)
    return EngineSource(table, root, version if version and _key(version) else None)


def _installed(table: EngineTable, wanted: str) -> EngineSource:
    fetch = f"give --engine {table.name}@DIR or {table.name}@WHEEL"
    folder = _package_folder(table.package)
    if folder is None:
        raise NoEngineError(f"{table.title} is not installed here; {fetch}")
    if not (folder / table.entry).is_file():
        raise NoEngineError(f"a package {table.package} is installed, but not {table.title}: it has no {table.entry}")
    try:
        version: str | None = metadata.version(table.distribution)
    except metadata.PackageNotFoundError:
        version = version_beside(folder.parent, table.distribution, table.package)
    version = version if version and _key(version) else None
    if wanted and (version is None or _key(version) != _key(wanted)):
        raise NoEngineError(f"{table.title} {version or 'of no stated version'} is installed, not {wanted}; {fetch}")
    return EngineSource(table, folder.parent, version)


def _package_folder(package: str) -> Path | None:
    """Return the folder of an installed package; the finders look for it, and nothing of it runs."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    return folders[0] if folders else None


def _key(version: str) -> object:
    """Return a version for comparison; None for other texts."""
    try:
        return version_key(version)
    except InvalidVersionError:
        return None

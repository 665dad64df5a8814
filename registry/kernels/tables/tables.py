"""Kernel tables: AITER's tuned CSV files, from any source.

Sources are folders, files, bytes, or an installed AITER.
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

from preshuffle.registry.base.versions import InvalidVersionError, version_identity, version_key
from preshuffle.registry.kernels.aiter_versions.behaviour import Behaviour
from preshuffle.registry.kernels.errors import TableError
from preshuffle.registry.kernels.families.families import Families, packaged_families
from preshuffle.registry.kernels.tables.grouped_index import GroupedIndex
from preshuffle.registry.kernels.tables.hazards import table_hazards
from preshuffle.registry.kernels.tables.index import Index, build_index
from preshuffle.registry.kernels.tables.rows import GroupedRow, Hazard, Row
from preshuffle.registry.kernels.tables.table_file import TableFile, parse_table, read_bytes


class TableSet:
    """Tables of one AITER version, in AITER's order.

    A ``version`` of None is for every version without tables of its own.
    """

    def __init__(self, version: str | None, files: list[TableFile]) -> None:
        """Collect the rows of the files."""
        self.version = version
        self.files = files
        self.rows: list[Row] = [row for file in files for row in file.rows]
        self.grouped: list[GroupedRow] = [row for file in files for row in file.grouped]
        self._indexes: dict[str, Index] = {}
        self._hazards: tuple[Families, tuple[Hazard, ...]] | None = None

    def index(self, behaviour: Behaviour) -> Index:
        """Return the rows as one version reads them, built once per version."""
        index = self._indexes.get(behaviour.key)
        if index is None:
            index = self._indexes[behaviour.key] = build_index(self.rows, behaviour)
        return index

    @cached_property
    def grouped_index(self) -> GroupedIndex:
        """Return the grouped rows, ready to match."""
        return GroupedIndex(self.grouped)

    def hazards_by(self, families: Families) -> tuple[Hazard, ...]:
        """Return the hazards of these tables by a book's kernel families."""
        if self._hazards is None or self._hazards[0] is not families:
            of_files = (hazard for file in self.files for hazard in file.hazards)
            self._hazards = families, (*of_files, *table_hazards(self.rows, self.grouped, families))
        return self._hazards[1]


class KernelTables:
    """Tuned tables of one or several AITER versions.

    Attributes:
        sets: One set per version that a path was tied to; version None answers for all others.
        digest: ``sha256:…`` over versions, file names and bytes, the same on any machine.

    Example:
        >>> tables = KernelTables.from_bytes({})
        >>> len(tables.rows), tables.hazards
        (0, ())
    """

    def __init__(self, sets: Iterable[TableSet], digest: str) -> None:
        """Take sets that are already read; use ``load``, ``from_bytes`` or ``from_installed_aiter``."""
        self.sets = tuple(sets)
        self.digest = digest
        self._by_key = {version_identity(s.version): s for s in self.sets if s.version is not None}
        self._any = next((s for s in self.sets if s.version is None), None)
        newest = max(self._by_key, default=None, key=lambda identity: (identity[0], identity[1] or ""))
        self._default = self._any or (self._by_key[newest] if newest is not None else None)

    @classmethod
    def load(cls, paths: str | Path | Iterable[str | Path], aiter: str | None = None) -> "KernelTables":
        """Load tables from CSV files and folders laid out as AITER's ``configs/``.

        Args:
            paths: Files and folders; ``path@version`` ties one to that AITER version alone.
            aiter: Version for the paths that name none.

        Raises:
            TableError: Naming file, line and column.
        """
        found: list[tuple[str | None, str, bytes]] = []
        for path in [paths] if isinstance(paths, str | Path) else paths:
            place, version = _split_version(path)
            found.extend((version or aiter, name, read_bytes(file, name)) for name, file in _files(place))
        return cls._read(found)

    @classmethod
    def named(cls, places: Literal["auto"] | Iterable[str | Path]) -> "KernelTables":
        """Load tables by name: paths, or ``auto`` for the installed AITER's.

        Raises:
            TableError: Naming file, line and column; for ``"auto"`` where no AITER is installed.
        """
        return cls.from_installed_aiter() if places == "auto" else cls.load(places)

    @classmethod
    def from_bytes(cls, files: Mapping[str, bytes], aiter: str | None = None) -> "KernelTables":
        """Load tables that were handed in, in the given order.

        Args:
            files: Content by file name.
            aiter: Version they belong to; None for any.

        Raises:
            TableError: Naming file, line and column.
        """
        return cls._read([(aiter, name, data) for name, data in files.items()])

    @classmethod
    def from_installed_aiter(cls) -> "KernelTables":
        """Load the tables of the installed ``amd-aiter``, without importing it.

        Raises:
            TableError: No AITER is installed, or only the unrelated PyPI distribution ``aiter``.
        """
        from preshuffle.registry.kernels.tables.installed import installed_configs

        folder, version = installed_configs()
        return cls.load([folder], aiter=version)

    @classmethod
    def overlaid(cls, base: "KernelTables | None", more: Iterable["KernelTables"]) -> "KernelTables":
        """Put tables that are tied to versions on top of others.

        They answer for exactly their versions, in the place of what ``base`` has for them; for every other version, and
        where no version is given, ``base`` answers as before.

        Args:
            base: What is answered from otherwise; None for nothing.
            more: Tables of one version each; a later one counts where two have the same.
        """
        on_top = list(more)
        digest = hashlib.sha256("\0".join(tables.digest for tables in (base, *on_top) if tables).encode())
        upper = {version_identity(s.version): s for tables in on_top for s in tables.sets if s.version is not None}
        under = base.sets if base else ()
        lower = [s for s in under if s.version is None or version_identity(s.version) not in upper]
        made = cls([*lower, *upper.values()], f"sha256:{digest.hexdigest()}")
        made._default = base.for_version(None) if base else None
        return made

    @classmethod
    def _read(cls, found: list[tuple[str | None, str, bytes]]) -> "KernelTables":
        digest = hashlib.sha256()
        by_version: dict[object, tuple[str | None, list[TableFile]]] = {}
        for version, name, data in found:
            digest.update(f"{version or ''}\0{name.rsplit('/', 1)[-1]}\0{len(data)}\0".encode())
            digest.update(data)
            identity = version_identity(version) if version is not None else None
            by_version.setdefault(identity, (version, []))[1].append(parse_table(name, data))
        sets = [TableSet(version, files) for version, files in by_version.values()]
        return cls(sets, f"sha256:{digest.hexdigest()}")

    def for_version(self, aiter: str | None) -> TableSet | None:
        """Return an AITER version's tables; None where it has none."""
        if aiter is None:
            return self._default
        return self._by_key.get(version_identity(aiter), self._any)

    def is_tied_to(self, aiter: str | None) -> bool:
        """Whether the tables for an AITER version were loaded for that version."""
        answering = self.for_version(aiter)
        return answering is not None and answering.version is not None

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every fused-MoE row, set by set, in AITER's order."""
        return tuple(row for tables in self.sets for row in tables.rows)

    @property
    def row_count(self) -> int:
        """Number of all rows, those of grouped tables included."""
        return sum(len(tables.rows) + len(tables.grouped) for tables in self.sets)

    @property
    def hazards(self) -> tuple[Hazard, ...]:
        """Hazards of the tables by the packaged book's kernel families."""
        return self.hazards_by(packaged_families())

    def hazards_by(self, families: Families) -> tuple[Hazard, ...]:
        """Return the hazards of the tables by a book's kernel families."""
        return tuple(hazard for tables in self.sets for hazard in tables.hazards_by(families))


def _split_version(path: str | Path) -> tuple[Path, str | None]:
    if isinstance(path, Path):
        return path, None
    place, at, version = path.rpartition("@")
    if not at or Path(path).exists():
        return Path(path), None
    try:
        version_key(version)
    except InvalidVersionError as exc:
        raise TableError(path, str(exc)) from exc
    return Path(place), version


def _files(place: Path) -> list[tuple[str, Path]]:
    if not place.is_dir():
        return [(str(place), place)]
    named = [place / "tuned_fmoe.csv"]
    named += sorted(place.glob("model_configs/*tuned_fmoe*.csv"))
    named += [place / "tuned_fhmoe.csv", place / "tuned_grouped_fmoe.csv"]
    tuned = [file for file in named if file.is_file() and "untuned" not in file.name]
    if not tuned:
        tuned = [file for file in sorted(place.glob("*tuned*fmoe*.csv")) if "untuned" not in file.name]
    if not tuned:
        raise TableError(str(place), "holds no tuned_fmoe.csv and no model_configs/*tuned_fmoe*.csv")
    return [(file.relative_to(place).as_posix(), file) for file in tuned]

"""Tuned tables of an AITER, read and merged as data."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Final

from preshuffle.layouts.conform.aiter_source import AiterSource
from preshuffle.layouts.conform.claim_log import ClaimLog
from preshuffle.registry.kernels import GFX_OF_CU_NUM, Families, KernelTables, TableError

SOURCE: Final = "_source"
_FILLED: Final = "0"
_TAG: Final = "_tag"
_GROUPED: Final = "tuned_grouped_fmoe.csv"


def load_tables(source: AiterSource, version: str) -> KernelTables | None:
    """Return an AITER's tables, or None."""
    configs = source.package / "configs"
    return KernelTables.load([configs], aiter=version) if configs.is_dir() else None


def check_tables(source: AiterSource, version: str, families: Families) -> ClaimLog:
    """Look up every kernel name and every column of the tuned tables."""
    log = ClaimLog()
    try:
        tables = load_tables(source, version)
    except TableError as error:
        log.disagree("kernel tables", "reading the tuned tables", "a table of AITER can be read", str(error))
        return log
    if tables is None:
        log.not_run("tuned tables", "there is no aiter/configs")
        return log
    _check_names(log, tables, families)
    _check_columns(log, tables)
    return log


def _check_names(log: ClaimLog, tables: KernelTables, families: Families) -> None:
    names: dict[str, str] = {}
    for row in tables.rows:
        for name in (row.kernel1, row.kernel2):
            names.setdefault(name, f"aiter/configs/{row.source}")
    for name, place in sorted(names.items()):
        if name and families.is_known_name(name):
            log.agree()
        elif name:
            here = "every kernel in a table is of a known family"
            log.disagree("kernel_families.*.grammar", name, here, "no grammar fits", place)


def _check_columns(log: ClaimLog, tables: KernelTables) -> None:
    for file in (file for part in tables.sets for file in part.files):
        unknown = [hazard for hazard in file.hazards if "columns that no AITER reads" in hazard.message]
        if unknown:
            place = f"aiter/configs/{unknown[0].source}"
            log.disagree("kernel tables", file.name, "every column is known", unknown[0].message, place)
        else:
            log.agree()
        if file.others:
            log.note(f"{file.name}: {file.others} rows of the heterogeneous path, which no call here reaches")


def write_merged(source: AiterSource, tables: KernelTables, target: Path) -> None:
    """Write one table of all rows, each with its source.

    Columns that a file lacks are 0, but for the architecture, which follows from the compute units.
    """
    rows: list[dict[str, str]] = []
    columns: dict[str, None] = {}
    for file in (file for part in tables.sets for file in part.files if file.rows):
        for number, row in _numbered(source.package / "configs" / file.name):
            columns.update(dict.fromkeys(row))
            rows.append({**row, SOURCE: f"{file.name}:{number}"})
    names = [*columns, SOURCE]
    with target.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, names)
        writer.writeheader()
        for row in rows:
            if "gfx" in columns and "gfx" not in row:
                row["gfx"] = GFX_OF_CU_NUM.get(int(row["cu_num"]), "")
            writer.writerow({name: row.get(name, "" if name == _TAG else _FILLED) for name in names})


def write_grouped(source: AiterSource, target: Path) -> None:
    """Write the grouped table, each row with its source."""
    place = source.package / "configs" / _GROUPED
    if not place.is_file():
        target.touch()
        return
    rows = [{**row, SOURCE: f"{_GROUPED}:{number}"} for number, row in _numbered(place)]
    with target.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]) if rows else [SOURCE])
        writer.writeheader()
        writer.writerows(rows)


def _numbered(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a file with the lines on which they end."""
    reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
    header = [name.strip() for name in next(reader)]
    rows = []
    for cells in reader:
        if any(cells):
            rows.append((reader.line_num, dict(zip(header, cells, strict=False))))
    return rows

"""Check kernel tables for conflicting rows, unknown kernels and ambiguous GPUs.

Exit codes: 0 they load (with warnings at most), 2 they do not.
"""

from __future__ import annotations

import argparse

from preshuffle.api.commands.kernels.tables import AUTO, finding_of
from preshuffle.api.commands.options.failures import OK
from preshuffle.api.commands.screens.decision_view import show_findings
from preshuffle.api.commands.screens.screen import Screen, print_json, short_digest
from preshuffle.api.commands.screens.table import Column
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.kernels import KernelTables
from preshuffle.registry.values.finding import Finding


class TableFileReport(Frozen):
    """Counts of one kernel table file."""

    name: str
    version: str | None
    rows: int
    grouped: int
    unreachable: int


class TablesReport(Frozen):
    """Kernel tables as AITER would load them; findings are warnings.

    Attributes:
        rows: of the fused-MoE tables.
        grouped: rows of the gfx1250 grouped table.
        files: in AITER's order; ``unreachable`` rows are of a table that no call of ``fused_moe`` gets to.
    """

    digest: str
    rows: int
    grouped: int
    files: tuple[TableFileReport, ...]
    findings: tuple[Finding, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's options."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="TABLES",
        help="a CSV, a folder like AITER's configs/, PATH@VERSION for one AITER, or auto for the installed one",
    )


def run(args: argparse.Namespace) -> int:
    """Load the tables and report what is suspicious."""
    tables = KernelTables.named("auto" if args.paths == [AUTO] else args.paths)
    report = TablesReport(
        digest=tables.digest,
        rows=len(tables.rows),
        grouped=tables.row_count - len(tables.rows),
        files=tuple(
            TableFileReport(
                name=file.name,
                version=loaded.version,
                rows=len(file.rows),
                grouped=len(file.grouped),
                unreachable=file.others,
            )
            for loaded in tables.sets
            for file in loaded.files
        ),
        findings=tuple(map(finding_of, tables.hazards)),
    )
    if args.json:
        print_json(report)
        return OK
    screen = Screen.of_terminal()
    screen.line(f"{screen.paint('the tables load', 'good')}  {tables.row_count:,} rows, {short_digest(report.digest)}")
    columns = [Column("file", wraps=True), Column("AITER"), Column("rows", right=True), Column("grouped", right=True)]
    rows = [(file.name, file.version or "any", f"{file.rows:,}", f"{file.grouped:,}") for file in report.files]
    screen.table(columns, rows)
    screen.heading("findings", "" if report.findings else "none")
    show_findings(screen, report.findings)
    screen.show()
    return OK

"""Check of the book and the kernel tables.

Problems have their place in the file; kernel tables give warnings.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from preshuffle.api.commands.options.books import chosen_book, chosen_tables
from preshuffle.api.commands.options.failures import BAD_INPUT, FAILED, OK
from preshuffle.api.commands.screens.decision_view import show_findings
from preshuffle.api.commands.screens.screen import Screen, short_digest
from preshuffle.api.commands.screens.table import Cell, Column
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import BookError, Problem, valid_text
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.kernels import KINDS, KernelTables, TableError
from preshuffle.registry.lint import (
    Statement,
    dispatch_book_problems,
    evidence_problems,
    family_problems,
    statements_of,
)
from preshuffle.registry.loading import Book
from preshuffle.registry.overlaid import Overlaid, overlaid_entries
from preshuffle.registry.reach import reach_problems
from preshuffle.registry.values.finding import Finding


class BookProblem(Frozen):
    """A problem of the book, with its position."""

    file: str
    line: int
    column: int
    message: str
    valid: tuple[str, ...] = ()


class LoadedTables(Frozen):
    """The kernel tables that were loaded."""

    digest: str
    rows: int
    versions: tuple[str | None, ...]


class Remainder(Frozen):
    """The packaged book beside overlays, summarised."""

    entries: int
    files: int
    by_reading: int


class CheckReport(Frozen):
    """Result of ``registry check``.

    With overlays, ``sources``, ``counts``, ``kernel_evidence`` and ``by_reading`` are of what the packaged book does
    not say, and ``packaged`` summarises that book. Problems are all that there are.

    Attributes:
        ok: whether everything loads, without problems; findings are warnings and do not count.
        loads: whether the book loads; problems that only a check finds do not stop it.
        packaged: what the packaged book has beside; null without overlays.
        overlaid: what the overlays do to packaged entries.
        table_error: why the kernel tables do not load.
        kernel_evidence: how many statements on what kernels read rest on each kind of evidence: a statement is of one
            family, GPU, tensor and layout.
        by_reading: the statements that rest on reading alone, or on nothing that the book says.
    """

    ok: bool
    loads: bool = True
    registry_digest: str | None = None
    sources: tuple[str, ...] = ()
    counts: dict[str, int] = Field(default_factory=dict)
    packaged: Remainder | None = None
    overlaid: tuple[Overlaid, ...] = ()
    problems: tuple[BookProblem, ...] = ()
    tables: LoadedTables | None = None
    table_error: str | None = None
    findings: tuple[Finding, ...] = ()
    kernel_evidence: dict[str, int] = Field(default_factory=dict)
    by_reading: tuple[Statement, ...] = ()

    @property
    def exit_code(self) -> int:
        """Exit code: 0, 1 or 2.

        1 where a book that loads has problems, 2 where book or tables do not load.
        """
        if self.ok:
            return OK
        return FAILED if self.loads and self.table_error is None else BAD_INPUT


def _shown(problem: Problem) -> BookProblem:
    return BookProblem(
        file=problem.file, line=problem.line, column=problem.column, message=problem.message, valid=problem.valid
    )


def check_books(args: argparse.Namespace) -> CheckReport:
    """Load and check book and tables."""
    try:
        registry = Registry.load(chosen_book(args))
    except BookError as error:
        return CheckReport(ok=False, loads=False, problems=tuple(map(_shown, error.problems)))
    problems = [problem for family in registry.book.families for problem in family_problems(registry.book, family)]
    problems += [*dispatch_book_problems(), *evidence_problems(registry.book), *reach_problems(registry)]
    report = CheckReport(
        ok=not problems,
        problems=tuple(map(_shown, problems)),
        registry_digest=registry.digest,
        **(_of_overlays(registry.book) if registry.book.overlaid else _of_packaged(registry.book)),
    )
    paths = chosen_tables(args)
    if paths is None:
        return report
    try:
        tables = KernelTables.named(paths)
    except TableError as error:
        return report.model_copy(update={"ok": False, "table_error": str(error)})
    versions = tuple(loaded.version for loaded in tables.sets)
    hazards = tables.hazards_by(registry.book.families)
    findings = tuple(
        Finding.of(hazard.code, f"{hazard.source}: {hazard.message}", actual=hazard.source) for hazard in hazards
    )
    loaded = LoadedTables(digest=tables.digest, rows=tables.row_count, versions=versions)
    return report.model_copy(update={"tables": loaded, "findings": findings})


def _of_packaged(book: Book) -> dict[str, Any]:
    counts = {section: len(entries) for section, entries in book.entries.items()}
    return {"sources": book.sources, "counts": counts, **_evidence(statements_of(book))}


def _of_overlays(book: Book) -> dict[str, Any]:
    """Return what a book says that the packaged one does not, and that in short."""
    packaged = Registry.default().book
    said = statements_of(packaged)
    own = [key for key, place in book.places.items() if not place.packaged]
    return {
        "sources": tuple(dict.fromkeys(book.places[key].document.name for key in own)),
        "counts": dict(Counter(section for section, _ in own)),
        "packaged": Remainder(
            entries=sum(map(len, packaged.entries.values())),
            files=len(packaged.sources),
            by_reading=sum(statement.by_reading for statement in said),
        ),
        "overlaid": tuple(overlaid_entries(book)),
        **_evidence([statement for statement in statements_of(book) if statement not in said]),
    }


def _evidence(statements: Sequence[Statement]) -> dict[str, Any]:
    counts = Counter(statement.known for statement in statements)
    by_kind: dict[str, int] = {kind: counts[kind] for kind in KINDS}
    if counts[None]:
        by_kind["not said"] = counts[None]
    by_reading = tuple(statement for statement in statements if statement.by_reading)
    return {"kernel_evidence": by_kind, "by_reading": by_reading}


def show_check(screen: Screen, report: CheckReport) -> None:
    """Show the report; problems as ``file:line:column``."""
    for problem in report.problems:
        valid = valid_text(problem.message, problem.valid)
        screen.line(f"{problem.file}:{problem.line}:{problem.column}: {problem.message}{valid}")
    problems = _count(len(report.problems), "problem")
    if not report.loads:
        screen.line(screen.paint(f"the book does not load: {problems}", "bad"))
        return
    text, style = (f"the book loads, with {problems}", "bad") if report.problems else ("the book loads", "good")
    loads = screen.paint(text, style)
    screen.line(f"{loads}  registry {short_digest(report.registry_digest or '')}")
    counts = "  ".join(f"{count} {section}" for section, count in report.counts.items())
    pairs = [("entries", counts), ("files", ", ".join(report.sources))]
    if rest := report.packaged:
        packaged = f"{rest.entries:,} entries in {rest.files} files, {rest.by_reading} statements by reading alone"
        pairs.append(("packaged", f"{packaged}; a check without overlays lists them"))
    screen.pairs(pairs)
    _show_overlaid(screen, report.overlaid)
    if report.table_error:
        screen.line(screen.paint("the kernel tables do not load", "bad"))
        screen.text(report.table_error)
    if report.tables:
        versions = ", ".join(version or "any AITER" for version in report.tables.versions)
        text = f"{_count(report.tables.rows, 'row')} for {versions}, {short_digest(report.tables.digest)}"
        screen.table([Column(), Column(wraps=True)], [(Cell("tables"), text)])
    _show_evidence(screen, report)
    if report.findings:
        screen.heading("findings", _count(len(report.findings), "warning"))
        show_findings(screen, report.findings)


def _show_overlaid(screen: Screen, overlaid: Sequence[Overlaid]) -> None:
    """Show what overlays do to packaged entries."""
    if not overlaid:
        return
    screen.heading("packaged entries", "that overlays change or take queries from; registry diff shows the fields")
    columns = [Column("entry", wraps=True), Column("now"), Column("by", wraps=True)]
    screen.table(
        columns,
        [
            (
                Cell(f"{item.section} {item.id}", "name"),
                Cell(item.effect, "warn"),
                ", ".join(place if id == item.id else f"{id} {place}" for id, place in item.by.items()),
            )
            for item in overlaid
        ],
    )


def _show_evidence(screen: Screen, report: CheckReport) -> None:
    """Show how it is known what kernels read, and what rests on reading alone."""
    if not any(report.kernel_evidence.values()):
        return
    counts = ", ".join(f"{count} {kind}" for kind, count in report.kernel_evidence.items())
    screen.heading("what kernels read", f"by family or backend, GPU and tensor: {counts}")
    if not report.by_reading:
        return
    screen.text("By reading alone:")
    with_gpus = {(item.section, item.family) for item in report.by_reading if item.arch}
    rows: dict[tuple[str, ...], list[str]] = {}
    for item in report.by_reading:
        key = (item.family, f"{item.role} {item.layout}", item.known or "not said", item.case)
        other = "other GPUs" if (item.section, item.family) in with_gpus else "any GPU"
        rows.setdefault(key, []).append(item.arch or other)
    columns = [
        Column("family or backend"),
        Column("tensor", wraps=True),
        Column("GPU"),
        Column("known by"),
        Column("case", wraps=True),
    ]
    screen.table(
        columns, [(Cell(key[0], "name"), key[1], ", ".join(gpus), key[2], key[3]) for key, gpus in rows.items()]
    )


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"

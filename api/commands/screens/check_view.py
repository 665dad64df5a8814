"""Terminal view of a report: verdict, findings and fixes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from preshuffle.api.commands.screens.decision_view import query_text
from preshuffle.api.commands.screens.screen import Screen
from preshuffle.api.commands.screens.table import GAP, Cell, Column, printable, wrap
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.query import Query
from preshuffle.registry.values.report import MEANINGS, Report

STYLES: Final = {"ok": "good", "degraded": "warn", "unknown": "warn", "unsupported": "bad", "mismatch": "bad"}
BAD_FILE: Final = "bad input"
_ROOM = 56
"""A message that gets fewer characters than this beside its code and role stands below them."""
_BELOW = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one input or group: a report or an error."""

    file: str
    report: Report | None = None
    error: str = ""
    layers: str | None = None

    @property
    def word(self) -> str:
        """The verdict, or ``bad input``."""
        return self.report.verdict if self.report else BAD_FILE


def show_report(screen: Screen, query: Query, report: Report) -> None:
    """Show one report."""
    verdict = report.verdict
    screen.line(f"{screen.paint(verdict, STYLES[verdict])}  {screen.paint(printable(query_text(query)), 'bold')}")
    if not report.findings:
        screen.text(MEANINGS[verdict])
    lead = max((len(_names(finding)) for finding in report.findings), default=0) + 2 + len(GAP)
    if screen.width - lead < _ROOM:
        lead = 0
    for number, finding in enumerate(report.findings):
        if number:
            screen.line()
        _show(screen, finding, lead)
    for note in report.notes:
        screen.text(note, style="dim")


def show_outcomes(screen: Screen, outcomes: Sequence[Outcome]) -> None:
    """Show a batch: a line per file, then the counts."""
    rows = []
    for outcome in outcomes:
        codes = dict.fromkeys(finding.code for finding in outcome.report.findings) if outcome.report else {}
        style = STYLES.get(outcome.word, "bad")
        where = f"{outcome.file}, layers {outcome.layers}" if outcome.layers else outcome.file
        rows.append((Cell(outcome.word, style), where, ", ".join(codes) or outcome.error.partition("\n")[0]))
    screen.table([Column("verdict"), Column("file", wraps=True), Column("findings", wraps=True)], rows, indent=0)
    counts = Counter(outcome.word for outcome in outcomes)
    parts = [f"{counts[word]} {word}" for word in (*reversed(MEANINGS), BAD_FILE) if counts[word]]
    screen.line()
    screen.line(f"{_total(outcomes)}: {', '.join(parts)}")


def _total(outcomes: Sequence[Outcome]) -> str:
    """Return how many files there are, and how many groups if some are replicas' reports."""
    grouped = [outcome.file for outcome in outcomes if outcome.layers is not None]
    files = len(outcomes) - len(grouped) + len(set(grouped))
    return _counted(files, "file") + (f" with {_counted(len(grouped), 'group')} of layers" if grouped else "")


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _names(finding: Finding) -> str:
    return finding.code + (GAP + finding.role if finding.role else "")


def _show(screen: Screen, finding: Finding, lead: int) -> None:
    """Show a finding.

    Its text stands ``lead`` characters to the right, or below its names where that is 0.
    """
    code = screen.paint(finding.code, "bad" if finding.severity == "error" else "warn")
    role = GAP + screen.paint(finding.role, "name") if finding.role else ""
    margin = " " * (lead or _BELOW)
    lines = wrap(finding.message, screen.width - len(margin))
    head = f"  {code}{role}"
    if lead:
        blank = " " * (lead - 2 - len(_names(finding)))
        screen.line(head + blank + lines.pop(0))
    else:
        screen.line(head)
    for line in lines:
        screen.line(margin + line)
    if finding.fix:
        first, *rest = wrap(f"Fix: {finding.fix}", screen.width - len(margin))
        screen.line(margin + screen.paint("Fix:", "good") + first.removeprefix("Fix:"))
        for line in rest:
            screen.line(margin + line)
    for place in finding.evidence:  # never broken: it is there to be followed
        screen.line(margin + screen.paint(printable(place), "dim"))

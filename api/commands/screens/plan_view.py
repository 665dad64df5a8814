"""Terminal view of a plan: what would change, why and where."""

from __future__ import annotations

from typing import Final

from preshuffle.api.commands.screens.check_view import STYLES
from preshuffle.api.commands.screens.screen import Screen, short_digest
from preshuffle.api.commands.screens.table import Cell, Column, printable
from preshuffle.api.rollout import Plan, PlanItem

_SHOWN: Final = 12


def show_plan(screen: Screen, plan: Plan) -> None:
    """Show a plan."""
    if plan.registry_before != plan.registry_after:
        screen.line(f"registry {short_digest(plan.registry_before)} → {short_digest(plan.registry_after)}")
        for change in plan.book[:_SHOWN]:
            screen.text(f"{change.change} {change.section} {change.id}", indent=2)
        if len(plan.book) > _SHOWN:
            screen.text(f"and {len(plan.book) - _SHOWN} more entries", indent=2)
    for warning in plan.warnings:
        screen.text(printable(warning), style="warn")
    for item in plan.items:
        _show_item(screen, item)
    screen.heading(f"{plan.worse} worse, {plan.better} better, {plan.same} the same")
    changed = plan.deployments - plan.unchanged
    restarts = {where.deployment for item in plan.items if item.restart for where in item.where}
    restart = f"; {len(restarts)} must restart" if restarts else ""
    screen.text(f"{changed} of {plan.deployments} deployments would change{restart}")


def _show_item(screen: Screen, item: PlanItem) -> None:
    before, after = item.before, item.after
    word = f"{before.verdict} → {after.verdict}" if before.verdict != after.verdict else after.verdict
    screen.heading(
        f"{before.recipe or 'no recipe'} → {after.recipe or 'no recipe'}"
        if before.recipe != after.recipe
        else f"{after.recipe or 'no recipe'}",
        printable(f"{item.model} on {item.arch}"),
    )
    rows: list[tuple[str, Cell | str]] = [
        ("where", _where(item)),
        ("verdict", Cell(word, STYLES[after.verdict])),
        ("bytes", {True: "other bytes", False: "the same bytes", None: "unknown"}[item.bytes_change]),
        ("restart", _restart(item)),
        ("because", printable(after.reason)),
    ]
    rows += [(change.field, f"{change.before} → {change.after}") for change in item.changes[:_SHOWN]]
    rows += [(f"{shift.tokens} tokens", f"{shift.before} → {shift.after}") for shift in item.kernels]
    rows += [(finding.code, printable(finding.message)) for finding in item.new_findings]
    screen.table([Column(), Column(wraps=True)], rows)


def _restart(item: PlanItem) -> str:
    if not item.restart:
        return "no: bytes, call and switches stay"
    return (
        "the engine must restart" if item.bytes_change is not None else "the engine must restart: one side is undecided"
    )


def _where(item: PlanItem) -> str:
    names = [f"{where.deployment} ({where.layers})" for where in item.where[:_SHOWN]]
    more = len(item.where) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")

"""Terminal view of deployments and their history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from preshuffle.api.answers import DeploymentView
from preshuffle.api.commands.screens.check_view import STYLES as VERDICTS
from preshuffle.api.commands.screens.screen import Screen
from preshuffle.api.commands.screens.table import Cell, Column, printable
from preshuffle.api.store import Events

STYLES: Final = {**VERDICTS, "drifted": "warn", "stale": "warn"}


def show_list(screen: Screen, deployments: Sequence[dict[str, Any]]) -> None:
    """Show a line per deployment, then the count."""
    rows = []
    for one in deployments:
        models = dict.fromkeys(f"{group['model']} on {group['arch']}" for group in one["groups"])
        codes = dict.fromkeys(finding["code"] for group in one["groups"] for finding in group["findings"])
        state = Cell(one["state"], STYLES[one["state"]])
        rows.append((state, one["name"], printable(", ".join(models)), str(len(one["replicas"])), ", ".join(codes)))
    heads = [
        Column("state"),
        Column("deployment"),
        Column("model", wraps=True),
        Column("replicas"),
        Column("findings", wraps=True),
    ]
    screen.table(heads, rows, indent=0)
    screen.line(f"{len(rows)} deployment{'' if len(rows) == 1 else 's'}")


def show_one(screen: Screen, view: DeploymentView) -> None:
    """Show one deployment."""
    screen.line(
        f"{screen.paint(view.state, STYLES[view.state])}  {screen.paint(view.name, 'bold')}  revision {view.revision}"
    )
    for replica in view.replicas:
        where = f" on {replica.node}" if replica.node else ""
        screen.heading(
            f"replica {replica.replica}{printable(where)}: {replica.state}",
            f"seen {replica.seen_at:%Y-%m-%d %H:%M:%S} UTC",
        )
        for group in replica.groups:
            recipe = group.decision.recipe if group.decision else "no recipe"
            drift = ", which is not what was decided when it was loaded" if group.drifted else ""
            screen.text(f"layers {group.layers}: {group.verdict}; the registry decides {recipe}{drift}")
            for finding in group.findings:
                screen.text(f"{finding.code}: {printable(finding.message)}", indent=4)
                if finding.fix:
                    screen.text(f"Fix: {printable(finding.fix)}", indent=4)


def show_events(screen: Screen, events: Events) -> None:
    """Show the history, the newest event first."""
    rows = []
    for event in events.events:
        state = f"{event.state_before or '—'} → {event.state_after or '—'}" if event.action != "book" else ""
        fields = ", ".join(f"{change.field}: {change.before} → {change.after}" for change in event.changes[:4])
        subject = event.subject if event.replica is None else f"{event.subject}/{event.replica}"
        rows.append((f"{event.at:%Y-%m-%d %H:%M:%S}", event.who, event.action, subject, state, printable(fields)))
    heads = [Column("UTC"), Column("who"), Column("what"), Column("of"), Column("state"), Column("changed", wraps=True)]
    screen.table(heads, rows, indent=0)
    if not rows:
        screen.line("nothing has changed")

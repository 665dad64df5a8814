"""Terminal view of deployments and their history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from preshuffle.api.answers import DeploymentView, ReplicaView
from preshuffle.api.commands.screens.check_view import STYLES as VERDICTS
from preshuffle.api.commands.screens.screen import Screen
from preshuffle.api.commands.screens.table import Cell, Column, printable
from preshuffle.api.fleet import IncompleteReplica, shown_with_missing
from preshuffle.api.pages import formats
from preshuffle.api.store import Events

_WIDE: Final = 100
"""Characters from which a table has room for what runs, why and where."""
_MARKS: Final = (("silenced", "silence"), ("acknowledged", "acknowledgement"))
STYLES: Final = {**VERDICTS, "drifted": "warn", "stale": "warn", "incomplete": "warn"}


def show_list(
    screen: Screen, deployments: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]] | None = None
) -> None:
    """Show groups where there are any, a line per deployment, the count."""
    if groups is not None:
        _show_groups(screen, groups)
    rows: list[tuple[Cell | str, ...]] = []
    for one in deployments:
        marks = [word for word, mark in _MARKS if one[mark]]
        incomplete = tuple(map(IncompleteReplica.model_validate, one["incomplete"]))
        shown = shown_with_missing(one["state"], bool(incomplete))
        state = Cell(", ".join((shown, *marks)), STYLES[shown])
        ago = formats.ago(datetime.fromisoformat(one["state_since"]))
        since = ago.removesuffix(" ago").replace("just now", "a moment")
        place = ", ".join((*one["archs"], *one["engines"], *one["parallel"]))
        runs = f"{', '.join(one['models'])} on {place}" if one["models"] else "no MoE layers"
        nodes = ", ".join(one["nodes"][:3]) + (" …" if len(one["nodes"]) > 3 else "")
        codes = f" ({', '.join(one['codes'])})" if one["codes"] else ""
        missing = "; ".join(f"{part.share}: {part.text}" for part in incomplete)
        why = printable("; ".join(filter(None, (missing, f"{one['cause'] or ''}{codes}".strip()))))
        rows.append((state, one["name"], since, why, printable(runs), printable(nodes)))
    if screen.width < _WIDE:
        _show_stacked(screen, rows)
    else:
        _show_table(screen, rows)
    screen.line(f"{len(rows)} deployment{'' if len(rows) == 1 else 's'}")


def _show_stacked(screen: Screen, rows: Sequence[tuple[Cell | str, ...]]) -> None:
    """Show why and what runs below each name, where a line has no room for them."""
    lines: list[tuple[Cell | str, ...]] = []
    for state, name, since, why, runs, nodes in rows:
        lines += [(state, f"{name}, for {since}"), ("", f"{runs}; {nodes}" if nodes else runs)]
        lines += [("", why)] if why else []
    screen.table([Column(), Column(wraps=True)], lines, indent=0)


def _show_table(screen: Screen, rows: Sequence[tuple[Cell | str, ...]]) -> None:
    heads = [
        Column("state"),
        Column("deployment", wraps=True, least=screen.width // 3),
        Column("for"),
        Column("why", wraps=True),
        Column("runs", wraps=True),
        Column("nodes", wraps=True),
    ]
    screen.table(heads, rows, indent=0)


def _show_groups(screen: Screen, groups: Sequence[dict[str, Any]]) -> None:
    rows = []
    for group in groups:
        counts = [f"{number} {state}" for state, number in group["states"].items()]
        counts += [f"{group['silenced']} silenced"] if group["silenced"] else []
        rows.append((printable(group["value"]) or "—", str(group["deployments"]), ", ".join(counts)))
    screen.table([Column("group"), Column("deployments"), Column("states", wraps=True)], rows, indent=0)


def show_one(screen: Screen, view: DeploymentView) -> None:
    """Show one deployment."""
    screen.line(
        f"{screen.paint(view.shown, STYLES[view.shown])}  {screen.paint(view.name, 'bold')}  revision {view.revision}"
    )
    screen.text(f"in this state since {view.state_since:%Y-%m-%d %H:%M:%S} UTC ({formats.ago(view.state_since)})")
    labels = [f"{key}={value}" for key, value in view.labels.items()]
    for title, text in (("owner", view.owner), ("link", view.link), ("labels", ", ".join(labels))):
        if text:
            screen.text(f"{title}: {printable(text)}")
    if view.silence:
        note = f": {view.silence.note}" if view.silence.note else ""
        screen.text(printable(f"silenced until {view.silence.until:%Y-%m-%d %H:%M} UTC by {view.silence.by}{note}"))
    if view.acknowledgement:
        note = f": {view.acknowledgement.note}" if view.acknowledgement.note else ""
        screen.text(
            printable(f"acknowledged {formats.ago(view.acknowledgement.at)} by {view.acknowledgement.by}{note}")
        )
    for incomplete in view.incomplete:
        screen.text(f"incomplete: {incomplete.text}", style="warn")
    for replica in view.replicas:
        _show_replica(screen, replica)


def _show_replica(screen: Screen, replica: ReplicaView) -> None:
    where = f" on {replica.node}" if replica.node else ""
    screen.heading(
        f"replica {replica.title}{printable(where)}: {replica.state}",
        f"seen {replica.seen_at:%Y-%m-%d %H:%M:%S} UTC",
    )
    if replica.env_left_out:
        screen.text(f"{replica.env_left_out} environment variables that the book does not know are not stored")
    if not replica.groups:
        screen.text("this stage has no MoE layers")
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
        state = "" if event.replica is None else f"{event.state_before or '—'} → {event.state_after or '—'}"
        fields = ", ".join(
            f"{change.field}: {_value(change.before)} → {_value(change.after)}" for change in event.changes[:4]
        )
        subject = event.subject if event.replica is None else f"{event.subject}/{event.title}"
        details = "; ".join(text for text in (event.cause, fields) if text)
        rows.append((f"{event.at:%Y-%m-%d %H:%M:%S}", event.who, event.action, subject, state, printable(details)))
    heads = [Column(title) for title in ("UTC", "who", "what", "of", "state")]
    heads.append(Column("why, and what changed", wraps=True))
    screen.table(heads, rows, indent=0)
    if not rows:
        screen.line("nothing has changed")


def _value(value: object) -> str:
    """Return a changed value; a registry without kernel tables ends with the plus that stands before their digest."""
    return formats.words(value, "—").removesuffix("+")

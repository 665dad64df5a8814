"""Migration: facts of replicas for lists, and causes of state changes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0005"
down_revision: Final = "0004"

_BATCH: Final = 500
_ENV: Final = ".query.env."


def upgrade() -> None:
    """Create the table, fill it from stored reports, and extend the history.

    Environment variables leave the history: it has no book to tell which are known. Those in reports are removed by the
    re-check, which the changed ``judged_by`` causes.
    """
    name = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
    facts = op.create_table(
        "replica_facts",
        sa.Column("name", name, primary_key=True),
        sa.Column("replica", sa.Integer, primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
        sa.Column("node", sa.String(256)),
        sa.Column("models", sa.Text, nullable=False),
        sa.Column("archs", sa.Text, nullable=False),
        sa.Column("engines", sa.Text, nullable=False),
        sa.Column("sizes", sa.Text, nullable=False),
        sa.Column("codes", sa.Text, nullable=False),
        sa.Column("cause", sa.String(256)),
        sa.Column("digest", sa.String(71)),
        sa.ForeignKeyConstraint(["name", "replica"], ["replicas.name", "replicas.replica"], ondelete="CASCADE"),
    )
    for column in (
        sa.Column("node", sa.String(256)),
        sa.Column("codes", sa.Text),
        sa.Column("cause", sa.String(256)),
        sa.Column("digest", sa.String(71)),
    ):
        op.add_column("history", column)
    connection = op.get_bind()
    _fill(connection, facts)
    _clean_history(connection)
    op.execute("UPDATE replicas SET judged_by = judged_by || '+old' WHERE judged_by <> ''")
    op.execute("INSERT INTO meta (key, value) SELECT 'emitted', coalesce(max(id), 0) FROM history")


def _fill(connection: sa.Connection, facts: sa.Table) -> None:
    """Insert a row per replica."""
    since = _state_since(connection)
    query = sa.text(
        "SELECT name, replica, report, judgement, state, replaced_ms FROM replicas "
        "WHERE name > :name OR (name = :name AND replica > :replica) ORDER BY name, replica LIMIT :batch"
    )
    last = {"name": "", "replica": -1, "batch": _BATCH}
    while rows := connection.execute(query, last).all():
        values = [
            {
                "name": row.name,
                "replica": row.replica,
                "state": row.state,
                "since_ms": since.get((row.name, row.replica), row.replaced_ms),
                **_values(row.report, row.judgement),
            }
            for row in rows
        ]
        connection.execute(facts.insert(), values)
        last |= {"name": rows[-1].name, "replica": rows[-1].replica}


def _state_since(connection: sa.Connection) -> dict[tuple[str, int], int]:
    rows = connection.execute(
        sa.text(
            "SELECT subject, replica, max(at_ms) AS at_ms FROM history WHERE replica IS NOT NULL "
            "AND state_after IS NOT NULL AND (state_before IS NULL OR state_before <> state_after) "
            "GROUP BY subject, replica"
        )
    )
    return {(row.subject, row.replica): row.at_ms for row in rows}


def _values(report_json: str, judgement_json: str) -> dict[str, Any]:
    report, judgement = _parsed(report_json, {}), _parsed(judgement_json, [])
    queries = list(_queries(report))
    findings = [finding for group in judgement for finding in group.get("findings", ())]
    findings.sort(key=lambda finding: finding.get("severity") != "error")
    node = report.get("node")
    return {
        "node": node,
        "models": _joined(query.get("model") for query in queries),
        "archs": _joined(group.get("arch") for group in judgement),
        "engines": _joined(_engine(query.get("engine")) for query in queries),
        "sizes": _joined(_size(query) for query in queries),
        "codes": _joined(finding.get("code") for finding in findings),
        "cause": str(findings[0].get("message"))[:200] if findings else None,
        "digest": judgement[0].get("decision_digest") if judgement else None,
    }


def _parsed(text: str, absent: Any) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return absent
    return value if isinstance(value, type(absent)) else absent


def _queries(report: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    groups = report.get("groups")
    for group in groups if isinstance(groups, list) else ():
        query = group.get("observation", {}).get("query")
        if isinstance(query, dict):
            yield query


def _engine(value: Any) -> str | None:
    if isinstance(value, dict):
        return "@".join(str(value[key]) for key in ("name", "version") if value.get(key))
    return value if isinstance(value, str) else None


def _size(query: Mapping[str, Any]) -> str:
    expert_parallel = query.get("ep") or 1
    return f"TP{query.get('tp') or 1}" + (f"/EP{expert_parallel}" if expert_parallel > 1 else "")


def _joined(values: Any) -> str:
    """Return values as a column holds them: each once, a line feed before and after each."""
    names = dict.fromkeys(str(value) for value in values if value)
    return "\n" + "\n".join(names) + "\n" if names else ""


def _clean_history(connection: sa.Connection) -> None:
    """Remove environment variables from recorded changes."""
    rows = connection.execute(sa.text("SELECT id, detail FROM history WHERE detail LIKE '%.query.env.%'")).all()
    for row in rows:
        changes = [change for change in _parsed(row.detail, []) if _ENV not in str(change.get("field"))]
        statement = sa.text("UPDATE history SET detail = :detail WHERE id = :id")
        connection.execute(statement, {"detail": json.dumps(changes), "id": row.id})

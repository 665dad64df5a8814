"""Migration: judgements, a table of heartbeats, history, and books by digest."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0002"
down_revision: Final = "0001"


def upgrade() -> None:
    """Extend the first tables; the next re-check judges reports stored before."""
    op.execute("DELETE FROM meta WHERE key = 'schema_version'")
    op.execute("INSERT INTO meta (key, value) VALUES ('changes', 0), ('tables', 0)")
    for column in (
        sa.Column("verdict", sa.String(16), nullable=False, server_default="unknown"),
        sa.Column("state", sa.String(16), nullable=False, server_default="unknown"),
        sa.Column("judged_by", sa.String(160), nullable=False, server_default=""),
        sa.Column("judgement", sa.Text, nullable=False, server_default="[]"),
        sa.Column("baseline", sa.Text, nullable=True),
    ):
        op.add_column("replicas", column)
    op.create_index("replicas_judged_by", "replicas", ["judged_by"])
    op.create_index("replicas_states", "replicas", ["name", "replica", "state"])
    name = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
    op.create_table(
        "beats",
        sa.Column("name", name, primary_key=True),
        sa.Column("replica", sa.Integer, primary_key=True),
        sa.Column("seen_ms", sa.BigInteger, nullable=False),
        sa.Column("ttl_ms", sa.BigInteger, nullable=True),
        sa.Column("silent", sa.Boolean, nullable=False),
        sa.ForeignKeyConstraint(["name", "replica"], ["replicas.name", "replicas.replica"], ondelete="CASCADE"),
    )
    op.execute("INSERT INTO beats SELECT name, replica, seen_ms, NULL, FALSE FROM replicas")
    op.drop_column("replicas", "seen_ms")
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "history",
        sa.Column("id", number, primary_key=True, autoincrement=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("who", sa.String(256), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("subject", name, nullable=False),
        sa.Column("replica", sa.Integer, nullable=True),
        sa.Column("revision", sa.BigInteger, nullable=True),
        sa.Column("verdict_before", sa.String(16), nullable=True),
        sa.Column("verdict_after", sa.String(16), nullable=True),
        sa.Column("state_before", sa.String(16), nullable=True),
        sa.Column("state_after", sa.String(16), nullable=True),
        sa.Column("registry", sa.String(160), nullable=True),
        sa.Column("detail", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("history_subject", "history", ["subject", "id"])
    op.create_table(
        "books",
        sa.Column("digest", sa.String(71), primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("sources", sa.Text, nullable=False),
        sa.Column("first_ms", sa.BigInteger, nullable=False),
        sa.Column("last_ms", sa.BigInteger, nullable=False),
    )

"""Migration: who reported each replica last, and how many bytes it takes."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0003"
down_revision: Final = "0002"


def upgrade() -> None:
    """Create the table; replicas stored before belong to no token."""
    name = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
    op.create_table(
        "usage",
        sa.Column("name", name, primary_key=True),
        sa.Column("replica", sa.Integer, primary_key=True),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["name", "replica"], ["replicas.name", "replicas.replica"], ondelete="CASCADE"),
        if_not_exists=True,
    )
    op.create_index("usage_owner", "usage", ["owner", "bytes"], if_not_exists=True)
    op.execute(
        "INSERT INTO usage SELECT name, replica, '', length(report) + length(judgement) FROM replicas "
        "WHERE NOT EXISTS (SELECT 1 FROM usage WHERE usage.name = replicas.name AND usage.replica = replicas.replica)"
    )

"""Migration: deployments with replicas, and uploaded kernel tables."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0001"
down_revision: Final = None


def upgrade() -> None:
    """Create the first tables."""
    op.create_table(
        "meta",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    name = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
    op.create_table(
        "deployments",
        sa.Column("name", name, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("replaced_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "replicas",
        sa.Column("name", name, sa.ForeignKey("deployments.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("replica", sa.Integer, primary_key=True),
        sa.Column("report", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("replaced_ms", sa.BigInteger, nullable=False),
        sa.Column("seen_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "kernel_contents",
        sa.Column("digest", sa.String(71), primary_key=True),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("names", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "kernel_sets",
        sa.Column("identity", sa.String(1024), primary_key=True),
        sa.Column("version", sa.String(128), nullable=False),
        sa.Column("digest", sa.String(71), sa.ForeignKey("kernel_contents.digest"), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
    )
    op.execute("INSERT INTO meta (key, value) VALUES ('revision', 0)")

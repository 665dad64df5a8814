"""Migration: conformance reports by AITER build."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0004"
down_revision: Final = "0003"


def upgrade() -> None:
    """Create the table."""
    name = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
    op.create_table(
        "conformance",
        sa.Column("build", name, primary_key=True),
        sa.Column("version", sa.String(128)),
        sa.Column("identity", sa.String(1024)),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("registry", sa.String(71), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("stored_ms", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_index("conformance_identity", "conformance", ["identity"], if_not_exists=True)

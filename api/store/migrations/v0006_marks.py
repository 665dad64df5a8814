"""Migration: labels, owner, link, silence and acknowledgement of deployments."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0006"
down_revision: Final = "0005"


def upgrade() -> None:
    """Create the table and the columns."""
    name = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
    for column in (
        sa.Column("owner", sa.String(128)),
        sa.Column("link", sa.String(1024)),
        sa.Column("silenced_by", sa.String(256)),
        sa.Column("silenced_ms", sa.BigInteger),
        sa.Column("silenced_until_ms", sa.BigInteger),
        sa.Column("silence_note", sa.String(400)),
        sa.Column("acknowledged_by", sa.String(256)),
        sa.Column("acknowledged_ms", sa.BigInteger),
        sa.Column("acknowledged_state", sa.String(16)),
        sa.Column("acknowledge_note", sa.String(400)),
    ):
        op.add_column("deployments", column)
    op.create_index("deployments_silenced", "deployments", ["silenced_until_ms"])
    op.create_table(
        "deployment_labels",
        sa.Column("name", name, sa.ForeignKey("deployments.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("label", sa.String(64), primary_key=True),
        sa.Column("value", sa.String(128), nullable=False),
    )
    op.create_index("deployment_labels_value", "deployment_labels", ["label", "value", "name"])
    op.add_column("replica_facts", sa.Column("env_left_out", sa.Integer, nullable=False, server_default="0"))

"""Migration: which stage a replica's number stood for, in the history."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0008"
down_revision: Final = "0007"


def upgrade() -> None:
    """Add the columns; of changes before nobody knows it any more."""
    for column in ("stage", "stages"):
        op.add_column("history", sa.Column(column, sa.Integer))

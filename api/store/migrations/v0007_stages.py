"""Migration: which stage of a pipeline each replica's number stands for."""

from __future__ import annotations

import json
from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0007"
down_revision: Final = "0006"


def upgrade() -> None:
    """Add the columns, and fill them from stored reports."""
    for column in ("stage", "stages"):
        op.add_column("replica_facts", sa.Column(column, sa.Integer))
    connection = op.get_bind()
    query = sa.text("SELECT name, replica, report FROM replicas WHERE report LIKE '%\"pipeline\":%'")
    update = sa.text(
        "UPDATE replica_facts SET stage = :stage, stages = :stages WHERE name = :name AND replica = :replica"
    )
    for row in connection.execute(query).all():
        pipeline = json.loads(row.report).get("pipeline")
        if pipeline:
            values = {"name": row.name, "replica": row.replica, "stage": pipeline["stage"]}
            connection.execute(update, {**values, "stages": pipeline["stages"]})

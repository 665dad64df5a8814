"""SQL tables of the store, at the newest schema version.

The steps to it are in ``migrations``; a test compares both.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

VERSION_TABLE: Final = "preshuffle_version"
EMITTED: Final = "emitted"
"""Key in ``meta``."""
_NAME: Final = String(128).with_variant(String(128, collation="C"), "postgresql")  # one order of names everywhere
_NUMBER: Final = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""Counters. ``revision``: the last one given out. ``changes``: every change of anything shown; a writer increments it
first, so writers run one after the other. ``tables``: uploads of kernel tables. ``emitted``: the last row of the
history whose state change was given to listeners."""

deployments = Table(
    "deployments",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("replaced_ms", BigInteger, nullable=False),
    Column("owner", String(128)),
    Column("link", String(1024)),
    Column("silenced_by", String(256)),
    Column("silenced_ms", BigInteger),
    Column("silenced_until_ms", BigInteger),
    Column("silence_note", String(400)),
    Column("acknowledged_by", String(256)),
    Column("acknowledged_ms", BigInteger),
    Column("acknowledged_state", String(16)),
    Column("acknowledge_note", String(400)),
    Index("deployments_silenced", "silenced_until_ms"),
)
"""Deployments, with what operators said of them. An acknowledgement counts while the state is the same since then."""

deployment_labels = Table(
    "deployment_labels",
    metadata,
    Column("name", _NAME, ForeignKey("deployments.name", ondelete="CASCADE"), primary_key=True),
    Column("label", String(64), primary_key=True),
    Column("value", String(128), nullable=False),
    Index("deployment_labels_value", "label", "value", "name"),
)

replicas = Table(
    "replicas",
    metadata,
    Column("name", _NAME, ForeignKey("deployments.name", ondelete="CASCADE"), primary_key=True),
    Column("replica", Integer, primary_key=True),
    Column("report", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("replaced_ms", BigInteger, nullable=False),
    Column("verdict", String(16), nullable=False, server_default="unknown"),
    Column("state", String(16), nullable=False, server_default="unknown"),
    Column("judged_by", String(160), nullable=False, server_default=""),
    Column("judgement", Text, nullable=False, server_default="[]"),
    Column("baseline", Text),
    Index("replicas_judged_by", "judged_by"),
    Index("replicas_states", "name", "replica", "state"),  # counting states reads no report
)
"""Reports of replicas with their judgements. ``judged_by`` names book and kernel tables (empty: not judged yet),
``judgement`` is JSON, one ``GroupJudgement`` per group, ``baseline`` the digests that drift is measured from."""

replica_facts = Table(
    "replica_facts",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("replica", Integer, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("node", String(256)),
    Column("models", Text, nullable=False),
    Column("archs", Text, nullable=False),
    Column("engines", Text, nullable=False),
    Column("sizes", Text, nullable=False),
    Column("codes", Text, nullable=False),
    Column("cause", String(256)),
    Column("digest", String(71)),
    Column("env_left_out", Integer, nullable=False, server_default="0"),
    Column("stage", Integer),
    Column("stages", Integer),
    ForeignKeyConstraint(["name", "replica"], ["replicas.name", "replicas.replica"], ondelete="CASCADE"),
)
"""What lists filter and sort by; narrow, since they read all of it. ``state`` leaves silence out, ``since_ms`` is when
the state that is shown began. Columns of several values have a line feed before and after each. ``env_left_out``: how
many reported environment variables the book does not know. ``stage``, ``stages``: of its pipeline; null without one."""

beats = Table(
    "beats",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("replica", Integer, primary_key=True),
    Column("seen_ms", BigInteger, nullable=False),
    Column("ttl_ms", BigInteger),
    Column("silent", Boolean, nullable=False),
    ForeignKeyConstraint(["name", "replica"], ["replicas.name", "replicas.replica"], ondelete="CASCADE"),
)
"""Last heartbeat of each replica; narrow, since it is written often. ``silent``: already in the history."""

usage = Table(
    "usage",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("replica", Integer, primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    ForeignKeyConstraint(["name", "replica"], ["replicas.name", "replicas.replica"], ondelete="CASCADE"),
    Index("usage_owner", "owner", "bytes"),  # sums read no row
)
"""Who reported each replica last (a token's name; empty without), and bytes of report and judgement then."""

history = Table(
    "history",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("who", String(256), nullable=False),
    Column("action", String(16), nullable=False),
    Column("subject", _NAME, nullable=False),
    Column("replica", Integer),
    Column("revision", BigInteger),
    Column("verdict_before", String(16)),
    Column("verdict_after", String(16)),
    Column("state_before", String(16)),
    Column("state_after", String(16)),
    Column("registry", String(160)),
    Column("detail", Text, nullable=False),
    Column("node", String(256)),
    Column("codes", Text),
    Column("cause", String(256)),
    Column("digest", String(71)),
    Column("stage", Integer),
    Column("stages", Integer),
    Index("history_subject", "subject", "id"),
    sqlite_autoincrement=True,
)
"""Audit log; a row is written in the transaction of its change."""

books = Table(
    "books",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("sources", Text, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
)
"""Books that the service has run: ``body`` is zlib over JSON, entries by section and id."""

kernel_contents = Table(
    "kernel_contents",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("rows", Integer, nullable=False),
    Column("names", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
"""Uploaded kernel tables by content: ``names`` is JSON, ``[name, size]`` per file; ``body`` is zlib."""

kernel_sets = Table(
    "kernel_sets",
    metadata,
    Column("identity", String(1024), primary_key=True),
    Column("version", String(128), nullable=False),
    Column("digest", String(71), ForeignKey("kernel_contents.digest"), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
"""Kernel tables of each AITER version; ``identity`` is the same for every spelling of one version."""

conformance = Table(
    "conformance",
    metadata,
    Column("build", _NAME, primary_key=True),
    Column("version", String(128)),
    Column("identity", String(1024)),
    Column("verdict", String(16), nullable=False),
    Column("summary", Text, nullable=False),
    Column("digest", String(71), nullable=False),
    Column("registry", String(71), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("stored_ms", BigInteger, nullable=False),
    Index("conformance_identity", "identity"),
)
"""Conformance reports by AITER build; ``identity`` as in ``kernel_sets``, ``body`` is zlib over JSON."""

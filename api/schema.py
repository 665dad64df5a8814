"""The store's tables, and the version of their shape."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, LargeBinary, MetaData, String, Table, Text

SCHEMA_VERSION: Final = 1

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""``schema_version``, and ``revision``: the last revision that was given out (so that none is given out twice)."""

deployments = Table(
    "deployments",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("replaced_ms", BigInteger, nullable=False),
)

replicas = Table(
    "replicas",
    metadata,
    Column("name", String(128), ForeignKey("deployments.name", ondelete="CASCADE"), primary_key=True),
    Column("replica", Integer, primary_key=True),
    Column("report", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("replaced_ms", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
)

kernel_contents = Table(
    "kernel_contents",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("rows", Integer, nullable=False),
    Column("names", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
"""Uploaded kernel tables by their content: ``names`` is JSON, ``[name, bytes]`` for each file; ``body`` is zlib."""

kernel_sets = Table(
    "kernel_sets",
    metadata,
    Column("identity", String(1024), primary_key=True),
    Column("version", String(128), nullable=False),
    Column("digest", String(71), ForeignKey("kernel_contents.digest"), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
"""Which AITER version has which tables; ``identity`` is the same for every spelling of one version."""

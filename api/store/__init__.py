"""Store of deployments, tables and history in SQLite or PostgreSQL."""

from preshuffle.api.store import kernel_store
from preshuffle.api.store.book_store import (
    BookEntries,
    KeptBooks,
    announce,
    announced,
    announced_registry,
    entries_of,
    kept_books,
    kept_entries,
)
from preshuffle.api.store.history import SERVICE, Entry, Events, FieldChange, Standing, differences, record
from preshuffle.api.store.retention import Retention, prune
from preshuffle.api.store.rows import AnyRow, Listed, among, each, is_silent, now_ms, read_baseline
from preshuffle.api.store.schema import beats, replicas
from preshuffle.api.store.store import Beating, Precondition, Store
from preshuffle.api.store.writes import judged_values

__all__ = [
    "SERVICE",
    "AnyRow",
    "Beating",
    "BookEntries",
    "Entry",
    "Events",
    "FieldChange",
    "KeptBooks",
    "Listed",
    "Precondition",
    "Retention",
    "Standing",
    "Store",
    "among",
    "announce",
    "announced",
    "announced_registry",
    "beats",
    "differences",
    "each",
    "entries_of",
    "is_silent",
    "judged_values",
    "kept_books",
    "kept_entries",
    "kernel_store",
    "now_ms",
    "prune",
    "read_baseline",
    "record",
    "replicas",
]

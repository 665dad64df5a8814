"""Store of deployments, tables, reports, books and history: SQLite or PostgreSQL."""

from preshuffle.api.store.book_store import (
    BookEntries,
    KeptBooks,
    announce,
    announced_name,
    announced_registry,
    entries_of,
    stored_books,
    stored_entries,
)
from preshuffle.api.store.database import in_thread
from preshuffle.api.store.history import (
    SERVICE,
    Events,
    FieldChange,
    HistoryEntry,
    ReplicaStatus,
    differences,
    record,
    state_since,
)
from preshuffle.api.store.quota import Quota
from preshuffle.api.store.retention import Retention, prune
from preshuffle.api.store.rows import AnyRow, JudgedDeployment, bound_key, in_keys, is_silent, now_ms, read_baseline
from preshuffle.api.store.schema import beats, replicas
from preshuffle.api.store.store import Precondition, ReplicaKey, Store
from preshuffle.api.store.uploads import conformance_store, kernel_store
from preshuffle.api.store.uploads.conformance_store import StoredConformance
from preshuffle.api.store.writes import judged_values

__all__ = [
    "SERVICE",
    "AnyRow",
    "BookEntries",
    "Events",
    "FieldChange",
    "HistoryEntry",
    "JudgedDeployment",
    "KeptBooks",
    "Precondition",
    "Quota",
    "ReplicaKey",
    "ReplicaStatus",
    "Retention",
    "Store",
    "StoredConformance",
    "announce",
    "announced_name",
    "announced_registry",
    "beats",
    "bound_key",
    "conformance_store",
    "differences",
    "entries_of",
    "in_keys",
    "in_thread",
    "is_silent",
    "judged_values",
    "kernel_store",
    "now_ms",
    "prune",
    "read_baseline",
    "record",
    "replicas",
    "state_since",
    "stored_books",
    "stored_entries",
]

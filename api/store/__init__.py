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
from preshuffle.api.store.copies.inspection import StoreFacts, inspect_store
from preshuffle.api.store.copies.sqlite_copies import back_up, restore_backup
from preshuffle.api.store.database import in_thread
from preshuffle.api.store.history import (
    SERVICE,
    Action,
    Circumstances,
    Events,
    FieldChange,
    HistoryEntry,
    ReplicaStatus,
    differences,
    record,
)
from preshuffle.api.store.listing import (
    FleetFilter,
    FleetGroup,
    FleetOrder,
    Grouping,
    JudgedDeployment,
    MarkChange,
    Order,
    Place,
    acknowledge,
    describe,
    silence,
    unacknowledge,
    unsilence,
)
from preshuffle.api.store.quota import Quota
from preshuffle.api.store.retention import Retention, prune
from preshuffle.api.store.rows import (
    AnyRow,
    bound_key,
    in_keys,
    is_silent,
    moment,
    now_ms,
    parted,
    read_baseline,
)
from preshuffle.api.store.schema import beats, replica_facts, replicas
from preshuffle.api.store.state_changes import StateChange, claim_state_changes
from preshuffle.api.store.store import Precondition, ReplicaKey, Store
from preshuffle.api.store.uploads import conformance_store, kernel_store
from preshuffle.api.store.uploads.conformance_store import StoredConformance
from preshuffle.api.store.writes import circumstances_of, facts_values, judged_values, shown_state, write_facts

__all__ = [
    "SERVICE",
    "Action",
    "AnyRow",
    "BookEntries",
    "Circumstances",
    "Events",
    "FieldChange",
    "FleetFilter",
    "FleetGroup",
    "FleetOrder",
    "Grouping",
    "HistoryEntry",
    "JudgedDeployment",
    "KeptBooks",
    "MarkChange",
    "Order",
    "Place",
    "Precondition",
    "Quota",
    "ReplicaKey",
    "ReplicaStatus",
    "Retention",
    "StateChange",
    "Store",
    "StoreFacts",
    "StoredConformance",
    "acknowledge",
    "announce",
    "announced_name",
    "announced_registry",
    "back_up",
    "beats",
    "bound_key",
    "circumstances_of",
    "claim_state_changes",
    "conformance_store",
    "describe",
    "differences",
    "entries_of",
    "facts_values",
    "in_keys",
    "in_thread",
    "inspect_store",
    "is_silent",
    "judged_values",
    "kernel_store",
    "moment",
    "now_ms",
    "parted",
    "prune",
    "read_baseline",
    "record",
    "replica_facts",
    "replicas",
    "restore_backup",
    "shown_state",
    "silence",
    "stored_books",
    "stored_entries",
    "unacknowledge",
    "unsilence",
    "write_facts",
]

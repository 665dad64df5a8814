"""Facts of one MoE layer: switches, AITER features, shared experts."""

from preshuffle.registry.layer.engines import engine_notes, read_after, unknown_engine
from preshuffle.registry.layer.features import behaves_as, check_probed, features_of, why_lacking
from preshuffle.registry.layer.installed_aiter import installed_aiter
from preshuffle.registry.layer.shared_experts import appends_masked_column, count_shared
from preshuffle.registry.layer.switches import (
    AITER,
    Switches,
    is_undecided,
    read_switches,
    value_of,
    why_unlisted,
    why_unread,
)

__all__ = [
    "AITER",
    "Switches",
    "appends_masked_column",
    "behaves_as",
    "check_probed",
    "count_shared",
    "engine_notes",
    "features_of",
    "installed_aiter",
    "is_undecided",
    "read_after",
    "read_switches",
    "unknown_engine",
    "value_of",
    "why_lacking",
    "why_unlisted",
    "why_unread",
]

"""Facts of one MoE layer: switches, AITER features, shared experts."""

from preshuffle.registry.layer.engines import engine_notes, read_after, unknown_engine
from preshuffle.registry.layer.expert_slots import (
    SharedExperts,
    Slots,
    counted_fields,
    expert_slots,
    shared_experts_of,
)
from preshuffle.registry.layer.features import behaves_as, check_probed, features_of, why_lacking
from preshuffle.registry.layer.installed_aiter import installed_aiter
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
    "SharedExperts",
    "Slots",
    "Switches",
    "behaves_as",
    "check_probed",
    "counted_fields",
    "engine_notes",
    "expert_slots",
    "features_of",
    "installed_aiter",
    "is_undecided",
    "read_after",
    "read_switches",
    "shared_experts_of",
    "unknown_engine",
    "value_of",
    "why_lacking",
    "why_unlisted",
    "why_unread",
]

"""One MoE layer as it really runs: its facts, calls and kernels."""

from preshuffle.registry.layer.calls import ROWS_OF_W13, PossibleCall, dispatch_call, possible_calls
from preshuffle.registry.layer.complete import layer_of
from preshuffle.registry.layer.engines import engine_notes, read_after, unknown_engine
from preshuffle.registry.layer.expert_slots import (
    SharedExperts,
    Slots,
    counted_fields,
    expert_slots,
    shared_experts_of,
)
from preshuffle.registry.layer.features import behaves_as, features_of, why_lacking
from preshuffle.registry.layer.installed_aiter import installed_aiter, probe_sources
from preshuffle.registry.layer.moe_layer import MoELayer, Source
from preshuffle.registry.layer.prediction import REACH, Prediction, Predictor
from preshuffle.registry.layer.sizes import NEEDED, LayerSizes, RankShards, rank_shards, shard_share
from preshuffle.registry.layer.supposed import supposed_layers
from preshuffle.registry.layer.switches import (
    AITER,
    Switches,
    is_off_before,
    is_undecided,
    is_unread_by_version,
    read_switches,
    refusal,
    value_of,
    why_refused,
    why_unlisted,
    why_unread,
)
from preshuffle.registry.layer.tensors import SCALES, WEIGHTS, ObservedTensor, either_of, same_bytes, weight_dtype_of

__all__ = [
    "AITER",
    "NEEDED",
    "REACH",
    "ROWS_OF_W13",
    "SCALES",
    "WEIGHTS",
    "LayerSizes",
    "MoELayer",
    "ObservedTensor",
    "PossibleCall",
    "Prediction",
    "Predictor",
    "RankShards",
    "SharedExperts",
    "Slots",
    "Source",
    "Switches",
    "behaves_as",
    "counted_fields",
    "dispatch_call",
    "either_of",
    "engine_notes",
    "expert_slots",
    "features_of",
    "installed_aiter",
    "is_off_before",
    "is_undecided",
    "is_unread_by_version",
    "layer_of",
    "possible_calls",
    "probe_sources",
    "rank_shards",
    "read_after",
    "read_switches",
    "refusal",
    "same_bytes",
    "shard_share",
    "shared_experts_of",
    "supposed_layers",
    "unknown_engine",
    "value_of",
    "weight_dtype_of",
    "why_lacking",
    "why_refused",
    "why_unlisted",
    "why_unread",
]

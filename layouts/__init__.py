"""Byte operations on MoE tensors: apply, invert and prove layouts.

Needs torch.
"""

from preshuffle.layouts.checkpoint import Checkpoint, CheckpointError, write_checkpoint
from preshuffle.layouts.engines import (
    EnvironmentDifference,
    LayerQuery,
    ObservedCall,
    ObservedLayer,
    PreparedLayer,
    call_arguments,
    observe_here,
    observe_layer,
    observed_call,
    prepare,
    query_of_layer,
    registry_here,
    shipped_books,
)
from preshuffle.layouts.forensics import ExpertRange, Identification, identify
from preshuffle.layouts.loader import (
    ApplyResult,
    apply,
    apply_layout,
    begin_reload,
    describe,
    expert_view,
    finish_reload,
    inverse,
    invert_layout,
    plain_reload,
    plain_view,
    relayout,
    retag,
    write_expert,
)
from preshuffle.layouts.probe import aiter_here
from preshuffle.layouts.proof import Check, prove
from preshuffle.layouts.stamps import Stamp, stamp_of, stamps_from_metadata, stamps_to_metadata

__all__ = [
    "ApplyResult",
    "Check",
    "Checkpoint",
    "CheckpointError",
    "EnvironmentDifference",
    "ExpertRange",
    "Identification",
    "LayerQuery",
    "ObservedCall",
    "ObservedLayer",
    "PreparedLayer",
    "Stamp",
    "aiter_here",
    "apply",
    "apply_layout",
    "begin_reload",
    "call_arguments",
    "describe",
    "expert_view",
    "finish_reload",
    "identify",
    "inverse",
    "invert_layout",
    "observe_here",
    "observe_layer",
    "observed_call",
    "plain_reload",
    "plain_view",
    "prepare",
    "prove",
    "query_of_layer",
    "registry_here",
    "relayout",
    "retag",
    "shipped_books",
    "stamp_of",
    "stamps_from_metadata",
    "stamps_to_metadata",
    "write_checkpoint",
    "write_expert",
]

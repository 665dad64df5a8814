"""Bytes of MoE tensors: put them into the order that a decision names, take them out, prove them. Needs torch."""

from preshuffle.layouts.checkpoint.checkpoint import Checkpoint
from preshuffle.layouts.checkpoint.part import CheckpointError
from preshuffle.layouts.checkpoint.write import write_checkpoint
from preshuffle.layouts.forensics.identify import ExpertRange, Identification, identify
from preshuffle.layouts.loader.apply import apply, describe, inverse
from preshuffle.layouts.loader.expert import expert_view, write_expert
from preshuffle.layouts.loader.reload import begin_reload, finish_reload, relayout, retag
from preshuffle.layouts.loader.single import apply_layout, invert_layout
from preshuffle.layouts.probe.installed_aiter import aiter_here
from preshuffle.layouts.proof.prove import Check, prove
from preshuffle.layouts.stamps.stamp import Stamp, stamp_of, stamps_from_metadata, stamps_to_metadata

__all__ = [
    "Check",
    "Checkpoint",
    "CheckpointError",
    "ExpertRange",
    "Identification",
    "Stamp",
    "aiter_here",
    "apply",
    "apply_layout",
    "begin_reload",
    "describe",
    "expert_view",
    "finish_reload",
    "identify",
    "inverse",
    "invert_layout",
    "prove",
    "relayout",
    "retag",
    "stamp_of",
    "stamps_from_metadata",
    "stamps_to_metadata",
    "write_checkpoint",
    "write_expert",
]

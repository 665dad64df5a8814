"""Stamps: records of the layout that a tensor's bytes are in."""

from preshuffle.layouts.stamps.copies import forget_copies, hand_over_stamps
from preshuffle.layouts.stamps.digests import (
    StreamDigest,
    digest_file,
    digest_of_sums,
    pieces_of,
    row_sums_of_file,
)
from preshuffle.layouts.stamps.exclusive import exclusive
from preshuffle.layouts.stamps.inode_marks import FileState, remember_states, remembers_states, state_of_file
from preshuffle.layouts.stamps.mapped import check_writable, find_mappings, is_shared_file, mark_mapped, mark_unmapped
from preshuffle.layouts.stamps.memory_extents import (
    any_overlap,
    extent_of,
    extents_overlap,
    memory_extents_of,
    tensors_overlap,
)
from preshuffle.layouts.stamps.metadata import stamps_from_metadata, stamps_to_metadata
from preshuffle.layouts.stamps.samples import digest_of, sample_file, sample_memory
from preshuffle.layouts.stamps.stamp import (
    check_known,
    check_role,
    drop_stamp,
    enclosing_stamps,
    finish_write,
    lend,
    overlapping_stamps,
    prepare_write,
    put_stamp,
    put_stamps,
    record_location,
    soundness_of,
    stamp_of,
    verified_stamp_of,
    verified_stamps,
    watch,
)
from preshuffle.layouts.stamps.stamp_fields import Loss, Stamp
from preshuffle.layouts.stamps.unfinished import unfinished

__all__ = [
    "FileState",
    "Loss",
    "Stamp",
    "StreamDigest",
    "any_overlap",
    "check_known",
    "check_role",
    "check_writable",
    "digest_file",
    "digest_of",
    "digest_of_sums",
    "drop_stamp",
    "enclosing_stamps",
    "exclusive",
    "extent_of",
    "extents_overlap",
    "find_mappings",
    "finish_write",
    "forget_copies",
    "hand_over_stamps",
    "is_shared_file",
    "lend",
    "mark_mapped",
    "mark_unmapped",
    "memory_extents_of",
    "overlapping_stamps",
    "pieces_of",
    "prepare_write",
    "put_stamp",
    "put_stamps",
    "record_location",
    "remember_states",
    "remembers_states",
    "row_sums_of_file",
    "sample_file",
    "sample_memory",
    "soundness_of",
    "stamp_of",
    "stamps_from_metadata",
    "stamps_to_metadata",
    "state_of_file",
    "tensors_overlap",
    "unfinished",
    "verified_stamp_of",
    "verified_stamps",
    "watch",
]

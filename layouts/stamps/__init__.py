"""Stamps: records of the layout that a tensor's bytes are in."""

from preshuffle.layouts.stamps.mapped import check_writable, find_mappings, is_shared_file, mark_unmapped
from preshuffle.layouts.stamps.memory_extents import extent_of, extents_overlap, memory_extents_of, tensors_overlap
from preshuffle.layouts.stamps.stamp import (
    Loss,
    Stamp,
    check_role,
    drop_stamp,
    enclosing_stamps,
    overlapping_stamps,
    put_stamp,
    put_stamps,
    record_location,
    stamp_of,
    stamps_from_metadata,
    stamps_to_metadata,
)

__all__ = [
    "Loss",
    "Stamp",
    "check_role",
    "check_writable",
    "drop_stamp",
    "enclosing_stamps",
    "extent_of",
    "extents_overlap",
    "find_mappings",
    "is_shared_file",
    "mark_unmapped",
    "memory_extents_of",
    "overlapping_stamps",
    "put_stamp",
    "put_stamps",
    "record_location",
    "stamp_of",
    "stamps_from_metadata",
    "stamps_to_metadata",
    "tensors_overlap",
]

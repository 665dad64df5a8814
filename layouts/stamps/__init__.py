"""Stamps: which layout the bytes of a tensor are in."""

from preshuffle.layouts.stamps.mapped import check_writable, is_ordinary, is_shared_file, look_up
from preshuffle.layouts.stamps.memory_extents import extent_of, meet, overlap, places_of
from preshuffle.layouts.stamps.stamp import (
    Loss,
    Stamp,
    check_role,
    drop_stamp,
    place_of,
    put_stamp,
    put_stamps,
    stamp_of,
    stamps_around,
    stamps_from_metadata,
    stamps_to_metadata,
    stamps_under,
)

__all__ = [
    "Loss",
    "Stamp",
    "check_role",
    "check_writable",
    "drop_stamp",
    "extent_of",
    "is_ordinary",
    "is_shared_file",
    "look_up",
    "meet",
    "overlap",
    "place_of",
    "places_of",
    "put_stamp",
    "put_stamps",
    "stamp_of",
    "stamps_around",
    "stamps_from_metadata",
    "stamps_to_metadata",
    "stamps_under",
]

"""Stamps that go with a copy of a tensor (``deepcopy``, ``pickle``, ``torch.save``).

Such copies take a tensor's Python attributes along, AITER's tag among them, but not its storage's. So one attribute of
the tensor hands the stamps over, and all of the copy's bytes are compared with them. ``clone`` takes nothing along.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import Any, Final

import torch

from preshuffle.layouts.stamps.entry import Extent, StampEntry, is_unchanged, take_digest, take_fingerprint
from preshuffle.layouts.stamps.memory_records import MEMORY
from preshuffle.layouts.stamps.stamp_fields import Stamp

_ATTRIBUTE: Final = "_preshuffle_copy"


class StampSource:
    """Attribute of a stamped tensor that its copies take along."""

    def __init__(self, storage: torch.UntypedStorage) -> None:
        """Refer to the storage weakly: the attribute must not keep it."""
        self._storage = weakref.ref(storage)

    def __deepcopy__(self, memo: dict[int, Any]) -> OrderedDict[str, str]:
        """Return the stamps and digests of the storage, for the copy."""
        return self._texts()

    def __reduce__(self) -> tuple[type[OrderedDict[str, str]], tuple[list[tuple[str, str]]]]:
        """Pickle as an ``OrderedDict`` of texts, which every unpickler takes."""
        return OrderedDict, (list(self._texts().items()),)

    def _texts(self) -> OrderedDict[str, str]:
        storage = self._storage()
        record = MEMORY.find(storage) if storage is not None else None
        found: OrderedDict[str, str] = OrderedDict()
        if storage is None or record is None:
            return found
        first, past = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
        for extent, entry in record.entries.items():
            inside = first <= extent[0] and extent[1] <= past
            if inside and is_unchanged(entry, storage, extent, thorough=True):
                key = f"{extent[0] - first}-{extent[1] - first}"
                found[key] = f"{take_digest(storage, extent)} {entry.stamp.to_text()}"
        return found


def hand_over_stamps(tensor: torch.Tensor) -> None:
    """Give a tensor the attribute that copies take along."""
    setattr(tensor, _ATTRIBUTE, StampSource(tensor.untyped_storage()))


def forget_copies(tensor: torch.Tensor) -> None:
    """Remove the attribute that copies take along."""
    if hasattr(tensor, _ATTRIBUTE):
        delattr(tensor, _ATTRIBUTE)


def adopt_stamps(tensor: torch.Tensor) -> None:
    """Stamp a copy whose bytes are those that its attribute says.

    Other bytes get no stamp.
    """
    texts = getattr(tensor, _ATTRIBUTE, None)
    if not isinstance(texts, OrderedDict):
        return
    delattr(tensor, _ATTRIBUTE)
    storage = tensor.untyped_storage()
    found: dict[Extent, StampEntry] = {}
    for key, text in texts.items():
        begin, end = (int(number) + storage.data_ptr() for number in key.split("-"))
        digest, _, stamp = text.partition(" ")
        if begin <= end <= storage.data_ptr() + storage.nbytes():
            if take_digest(storage, (begin, end)) == digest:
                found[begin, end] = StampEntry(Stamp.from_text(stamp), take_fingerprint(storage, (begin, end)), digest)
    record = MEMORY.find(storage, create=True) if found else None
    if record is not None:
        record.entries.update(found)
        hand_over_stamps(tensor)


def has_copied_stamps(tensor: torch.Tensor) -> bool:
    """Return whether a tensor came with stamps that nobody has looked at."""
    return isinstance(getattr(tensor, _ATTRIBUTE, None), OrderedDict)

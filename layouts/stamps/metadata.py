"""Stamps in the metadata of safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import torch

from preshuffle.layouts.stamps.entry import take_digest
from preshuffle.layouts.stamps.memory_extents import addresses_of
from preshuffle.layouts.stamps.stamp import put_stamps, verified_stamp_of
from preshuffle.layouts.stamps.stamp_fields import Stamp
from preshuffle.layouts.tensors import ACCEPTED_DTYPES, dtype_name, untraced
from preshuffle.registry import LayoutError

_HEADER: Final = "preshuffle."


@untraced
def stamps_to_metadata(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return stamps as metadata of a safetensors file.

    Each with a digest of all its bytes. Tensors without a stamp, and those whose bytes were changed since, are left
    out.
    """
    found = {name: verified_stamp_of(tensor) for name, tensor in tensors.items()}
    return {
        f"{_HEADER}{name}": _with_digest(stamp, tensors[name]).to_text()
        for name, stamp in found.items()
        if stamp is not None and stamp.state != "unknown"
    }


@untraced
def stamps_from_metadata(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None) -> None:
    """Stamp tensors from the metadata of their safetensors file.

    Raises:
        LayoutError: the metadata is damaged, or a tensor has another shape, dtype or other bytes than its stamp says;
            none is stamped then.
    """
    stamps: dict[str, Stamp] = {}
    for key, text in (metadata or {}).items():
        name = key.removeprefix(_HEADER)
        if key.startswith(_HEADER) and name in tensors:
            stamps[name] = _checked(name, tensors[name], Stamp.from_text(text))
    for name, stamp in stamps.items():
        put_stamps([(tensors[name], replace(stamp, digest=None))], digests=[stamp.digest])


def _checked(name: str, tensor: torch.Tensor, stamp: Stamp) -> Stamp:
    if tuple(tensor.shape) != stamp.tensor_shape:
        raise LayoutError(f"{name} has shape {tuple(tensor.shape)}; its stamp says {stamp.tensor_shape}")
    if tensor.element_size() not in {dtype.itemsize for dtype in ACCEPTED_DTYPES[stamp.dtype]}:
        raise LayoutError(f"{name} is {dtype_name(tensor.dtype)}; its stamp says {stamp.dtype}")
    if stamp.digest is not None and stamp.digest != _digest_of(tensor):
        raise LayoutError(f"{name} does not hold the bytes that its stamp says ({stamp.layout}): they were changed")
    return stamp


def _with_digest(stamp: Stamp, tensor: torch.Tensor) -> Stamp:
    whole = stamp.state == "applied" and tuple(tensor.shape) == stamp.tensor_shape and tensor.is_contiguous()
    return replace(stamp, digest=_digest_of(tensor)) if whole else stamp


def _digest_of(tensor: torch.Tensor) -> str:
    return take_digest(tensor.untyped_storage(), addresses_of(tensor))

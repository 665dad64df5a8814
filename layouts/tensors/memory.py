"""Check that tensors have memory of their own."""

from __future__ import annotations

import torch
from torch.nn.parameter import is_lazy

from preshuffle.registry.base.errors import LayoutError


def check_memory(name: str, tensor: torch.Tensor) -> None:
    """Check that a tensor's bytes are there.

    Raises:
        LayoutError: it is a stand-in without bytes (see ``check_no_stand_in``), or its storage was freed.
    """
    check_no_stand_in(name, tensor)
    if not has_bytes(tensor):
        nbytes = tensor.untyped_storage().nbytes()
        raise LayoutError(f"{name} is larger than its storage of {nbytes} bytes: its memory was freed")


def check_no_stand_in(name: str, tensor: torch.Tensor) -> None:
    """Check that a tensor has a storage of its own.

    Raises:
        LayoutError: it is a FakeTensor, what ``torch.vmap``, ``torch.func`` and ``torch.jit.trace`` pass, or a
            parameter that is not initialised.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        raise LayoutError(f"{name} is traced by torch.jit; valid: a plain tensor, outside of torch.jit.trace")
    if is_lazy(tensor):
        raise LayoutError(f"{name} is a {type(tensor).__name__}: it has no bytes yet")
    try:
        storage = tensor.untyped_storage()
        device = storage.device
        if device.type != "meta":
            storage.data_ptr()  # raises where nothing is allocated
    except (NotImplementedError, RuntimeError):
        raise LayoutError(
            f"{name} is a {type(tensor).__name__} that wraps another one (vmap, torch.func) and has no bytes; "
            "valid: a plain tensor, outside of the transform"
        ) from None
    if device.type == "meta" and tensor.device.type != "meta":
        raise LayoutError(f"{name} is a {type(tensor).__name__}: it has no bytes; valid: a plain tensor")


def has_bytes(tensor: torch.Tensor) -> bool:
    """Return whether a tensor's storage is as large as it shows."""
    if tensor.device.type == "meta" or tensor.layout != torch.strided or tensor.numel() == 0:
        return True
    if tensor.is_contiguous():
        needed = (int(tensor.storage_offset()) + tensor.numel()) * tensor.element_size()
        return bool(needed <= tensor.untyped_storage().nbytes())
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    needed = (int(tensor.storage_offset()) + last + 1) * tensor.element_size()
    return bool(needed <= tensor.untyped_storage().nbytes())

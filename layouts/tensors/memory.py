"""Check that tensors have memory of their own."""

from __future__ import annotations

import torch

from preshuffle.registry.base.errors import LayoutError


def check_memory(name: str, tensor: torch.Tensor) -> None:
    """Check that a tensor's bytes can be reached.

    Raises:
        LayoutError: it is a stand-in without bytes: a FakeTensor, or what ``torch.vmap`` and ``torch.func`` pass.
    """
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

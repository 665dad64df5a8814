"""Layers in padded buffers, and what is known of their bytes."""

from __future__ import annotations

from typing import Final

import torch

from preshuffle.layouts import apply, stamp_of
from support.tensors.moe import decide, in_padded_buffers, plain_tensors

DECISION: Final = decide("fp4x2")

Tensors = dict[str, torch.Tensor]


def plain_layer(seed: int = 0) -> Tensors:
    """Return a plain layer in buffers of the physical size."""
    return in_padded_buffers(plain_tensors(DECISION, seed=seed), DECISION)


def own_storage_layer() -> Tensors:
    """Return a plain layer that is laid out in its own storage as a whole: its biases are fp32 already."""
    plain = plain_tensors(DECISION)
    plain |= {role: plain[role].float() for role in ("w13_bias", "w2_bias")}
    return in_padded_buffers(plain, DECISION)


def laid_layer(seed: int = 0) -> Tensors:
    """Return a laid-out layer."""
    apply(tensors := plain_layer(seed), DECISION)
    return tensors


def raw(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor's bytes, as a view."""
    return tensor.detach().view(torch.uint8)


def state_of(tensor: torch.Tensor) -> str | None:
    """Return the state that a tensor's stamp says."""
    stamp = stamp_of(tensor)
    return stamp.state if stamp else None

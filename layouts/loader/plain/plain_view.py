"""Views of a layer's plain rows, where its layout allows one."""

from __future__ import annotations

from math import prod

import torch

from preshuffle.layouts.loader.result import AITER_TAG
from preshuffle.layouts.loader.single import layout_from
from preshuffle.layouts.loader.target import RoleTensors, Target
from preshuffle.layouts.stamps import check_known, check_role, stamp_of
from preshuffle.layouts.tensors import untraced
from preshuffle.registry import LayoutError
from preshuffle.registry.algebra.pattern import Pattern
from preshuffle.registry.base.words import Role


@untraced
def plain_view(target: Target, role: Role) -> torch.Tensor:
    """Return a view of a tensor's plain rows, as LoRA reads them.

    No byte moves: a tensor is refused whose rows are anywhere else than where plain ones are.

    Args:
        target: a layer, laid out or not.
        role: which tensor.

    Returns:
        ``[experts, rows, K]`` without pads, in the order in which the kernel reads rows (``stamp_of(...).order``).

    Raises:
        LayoutError: its layout is not plain, its rows have pads between gate and up, its values were changed by a step,
            or nobody knows what its bytes are.
    """
    tensors = RoleTensors(target)
    if role not in tensors.names:
        raise LayoutError(f"the target has no {role}; it has: {', '.join(tensors.names)}")
    tensor = tensors[role]
    stamp = stamp_of(tensor)
    if stamp is None:
        if getattr(tensor, AITER_TAG, False):
            raise LayoutError(f"{role} has AITER's tag and no stamp: which layout its bytes are in is unknown")
        return tensor.detach()
    check_known(role, tensor, stamp)
    check_role(role, stamp)
    if stamp.state != "applied":
        raise LayoutError(f"{role} is {stamp.state}: its bytes are neither plain nor laid out")
    if stamp.aiter_bytes or not _keeps_order(layout_from(stamp).pattern):
        advice = "resolve for a recipe of plain rows (such as a Triton backend), or inverse a copy"
        raise LayoutError(f"{role} is laid out as {stamp.layout}: no view shows its plain rows; {advice}")
    if stamp.steps:
        raise LayoutError(f"{role} holds values changed by {', '.join(stamp.steps)}; the checkpoint's are in no view")
    if stamp.order == "GGUU" and stamp.pad[0]:
        raise LayoutError(f"{role} has {stamp.pad[0]} rows of padding between gate and up; no view leaves them out")
    if len(stamp.physical_shape) != len(stamp.shape) and prod(stamp.physical_shape) != prod(stamp.shape):
        raise LayoutError(f"{role} has pads behind all experts; no view leaves them out")
    flat = len(stamp.physical_shape) != len(stamp.shape)
    rows = tensor.detach().view(stamp.shape if flat else stamp.physical_shape)
    return rows[tuple(slice(size) for size in stamp.shape)]


def _keeps_order(pattern: Pattern) -> bool:
    """Whether memory order is the order of the logical axes."""
    return pattern.memory == (*pattern.experts, *pattern.rows, *pattern.k)

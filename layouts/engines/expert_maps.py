"""Expert maps of expert parallelism: masks, and indices of local experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def map_fields(expert_map: torch.Tensor | None) -> Mapping[str, Any]:
    """Read an expert map as fields of ``Applied``.

    A mask has a 1 for each local expert; indices have the local number of each, and -1 for those of other ranks. Where
    the values may be either (two experts at most), the kind stays unknown.

    Args:
        expert_map: ``[experts]``; None where none was passed, which says nothing.
    """
    if expert_map is None:
        return {}
    values = [int(value) for value in expert_map.detach().flatten().tolist()]
    is_mask = set(values) <= {0, 1}
    local = sorted(value for value in values if value >= 0)
    is_index = set(values) != {0} and local == list(range(len(local)))
    fields: dict[str, Any] = {"mask_size": len(values)}
    if is_mask and not is_index:
        return {**fields, "expert_map": "mask", "mask_ones": (sum(values),)}
    if is_index and not is_mask:
        return {"expert_map": "index"}
    return {}

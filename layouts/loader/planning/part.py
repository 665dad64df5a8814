"""Parts of one expert, read from laid-out bytes."""

from __future__ import annotations

from functools import lru_cache

import torch

from preshuffle.layouts.loader.expert import part_views
from preshuffle.layouts.loader.planning.job_plan import JobPlan
from preshuffle.layouts.moves import take_back
from preshuffle.registry import CopyPlan
from preshuffle.registry.algebra.copy_plan import plan_part


def read_part(plan: JobPlan, laid: torch.Tensor, expert: int, first_row: int, plain: torch.Tensor) -> None:
    """Read some plain rows of an expert from its laid-out bytes.

    Args:
        plan: of the tensor; each expert is laid out on its own.
        laid: flat uint8, all experts.
        expert: which one.
        first_row: in the checkpoint's order of rows.
        plain: gets them, flat uint8 of the same device: as many rows as fit, of the live bytes of K.
    """
    for one in _plans(plan, expert, first_row, plain.numel() // plan.geometry.live_k):
        take_back(one, laid, plain)


# Process-wide: a pure function of a cached plan, which every layer repeats.
@lru_cache(maxsize=1024)
def _plans(plan: JobPlan, expert: int, first_row: int, rows: int) -> tuple[CopyPlan, ...]:
    geometry = plan.geometry
    part = torch.empty((rows, geometry.live_k), dtype=torch.uint8, device="meta")
    views = part_views(geometry, expert, first_row, 0, part)
    return tuple(plan_part(geometry.bound(geometry.experts), view, geometry.halves) for view in views)

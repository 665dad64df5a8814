"""Plan of one tensor's move, determined by decision, shape and dtype."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from preshuffle.layouts.loader.geometry import Geometry, flat_rows_of, plan_geometry
from preshuffle.layouts.loader.input_checks import check_dtype, check_shape, passed_shape
from preshuffle.layouts.loader.int4 import PACK
from preshuffle.layouts.moves import InPlace, can_cast
from preshuffle.layouts.stamps import Stamp
from preshuffle.layouts.tensors import needs_cast
from preshuffle.registry import CopyPlan, LayoutError, TensorDecision
from preshuffle.registry.base.words import Role


@dataclass(frozen=True, slots=True, eq=False)
class JobPlan:
    """Checked shapes and planned move, which equal layers share.

    Attributes:
        stamp: of the result, without losses, which depend on values.
        geometry: relates plain rows to laid-out bytes.
        stage: how rows become ``[experts * rows, K]`` first; None where each expert is laid out on its own.
        copies: the move of all experts.
        dtype: of the laid-out tensor.
        last: whether the tensor is the last rank's; None where the ranks do not differ.
        in_place: whether the result fits the tensor's own storage.
        casts: whether values are cast first, as floats are.
        casts_in_move: whether they are cast while they are moved, in one pass.
        mover: moves the tensor in its own storage, where the result fits it.
    """

    stamp: Stamp
    geometry: Geometry
    stage: Geometry | None
    copies: CopyPlan
    dtype: torch.dtype
    last: bool | None
    in_place: bool
    casts: bool
    casts_in_move: bool
    mover: InPlace


# Process-wide: a pure function of frozen values that every layer repeats.
@lru_cache(maxsize=1024)
def plan_job(
    role: Role,
    decided: TensorDecision,
    recipe: str,
    digest: str,
    plain: tuple[torch.Size, torch.dtype],
    origin: tuple[torch.Size, torch.dtype],
    last_rank: bool,
) -> JobPlan:
    """Check dtype and shape against a decision, and plan the move.

    Args:
        role: the tensor's.
        decided: its decision.
        recipe: of the layer's decision.
        digest: of the layer's decision.
        plain: shape and dtype of the plain values, ``[experts, rows, K]``; of a scale that steps reduce, afterwards.
        origin: shape and dtype of the tensor as it came.
        last_rank: it is the last tensor-parallel rank's.

    Raises:
        LayoutError: shape or dtype are not what the decision says; names what would be.
    """
    tensor = torch.empty(plain[0], dtype=plain[1], device="meta")
    dtype = check_dtype(role, tensor, decided)
    shapes = check_shape(role, tensor, decided, dtype, last_rank)
    stamp = Stamp(
        recipe=recipe,
        decision_digest=digest,
        role=role,
        layout=decided.layout,
        layout_line=decided.layout_line,
        shape=shapes.live,
        source_shape=tuple(origin[0]),
        physical_shape=shapes.physical,
        pad=(decided.pad.rows, decided.pad.k),
        dtype=decided.dtype,
        source_dtype=origin[1],
        source_order=decided.source_order,
        order=decided.order,
        fill=decided.fill,
        padded_source=shapes.padded,
        is_shuffled=decided.is_shuffled,
        steps=decided.steps,
        flat_rows=flat_rows_of(decided),
        passed_shape=passed_shape(decided),
        tail=(decided.tail.first_k, decided.tail.fill) if decided.tail else None,
    )
    geometry, stage = plan_geometry(stamp, dtype.itemsize)
    packs = "pack_int4" in stamp.steps
    if packs and geometry.experts * geometry.expert_bytes % PACK:
        raise LayoutError(f"{role} of shape {tuple(tensor.shape)} holds no whole number of {PACK} values")
    casts = needs_cast(tensor.dtype, dtype)
    fits = tensor.dtype.itemsize == dtype.itemsize and tensor.nbytes == geometry.experts * geometry.expert_bytes
    copies = geometry.plan(geometry.experts)
    in_place = fits and not (packs or casts)
    one_pass = casts and stage is None and not (packs or decided.steps) and can_cast(copies, dtype.itemsize)
    return JobPlan(stamp, geometry, stage, copies, dtype, shapes.last, in_place, casts, one_pass, geometry.in_place)

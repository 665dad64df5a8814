"""Index of tuned rows by AITER's lookup key."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from sys import intern

from preshuffle.registry.kernels.aiter_versions.behaviour import Behaviour
from preshuffle.registry.kernels.dispatch.case import DispatchCase
from preshuffle.registry.kernels.tables.merge import MERGES
from preshuffle.registry.kernels.tables.rows import Row

Key = tuple[Hashable, ...]


ACT_TYPES = {name: intern(f"ActivationType.{name}") for name in ("Silu", "Gelu", "Swiglu", "Situv2")}


QUANT_TYPES = {
    name: intern(f"QuantType.{name}")
    for name in ("No", "per_Tensor", "per_Token", "per_1x32", "per_1x128", "per_128x128")
}


_TORCH = {
    "bf16": "torch.bfloat16",
    "fp16": "torch.float16",
    "fp32": "torch.float32",
    "fp4x2": "torch.float4_e2m1fn_x2",
    "i4x2": "torch.int4",
    "i8": "torch.int8",
    "uint8": "torch.uint8",
    "uint32": "torch.uint32",
}


def torch_names(case: DispatchCase) -> Mapping[str, str]:
    """Return torch's names of AITER's dtypes on a call's GPU.

    Which dtype AITER's fp8 is differs between GPUs.
    """
    key = (case.behaviour, case.call.gfx)
    return case.families.memo.get("torch names", key, lambda: _torch_names(*key))


def _torch_names(behaviour: Behaviour, gfx: str) -> dict[str, str]:
    fp8 = next(name for pattern, name in behaviour.data.fp8_dtype.items() if fnmatchcase(gfx, pattern))
    return {name: intern(torch) for name, torch in (_TORCH | {"fp8": fp8}).items()}


@dataclass(slots=True)
class Index:
    """Rows by lookup key, with and without the activation.

    Without it the first row in file order answers for any activation.

    Attributes:
        without_flydsl: rows that answer for FlyDSL rows where FlyDSL is missing; None where the version knows none.
    """

    exact: dict[Key, Row] = field(default_factory=dict)
    any_activation: dict[Key, Row] = field(default_factory=dict)
    shapes: set[Key] = field(default_factory=set)
    any_gfx: bool = False
    without_flydsl: Index | None = None

    def knows(self, case: DispatchCase) -> bool:
        """Return whether any row has the sizes of a call."""
        call = case.call
        return (case.cu_num, call.model_dim, call.inter_dim, call.expert, case.topk) in self.shapes


def build_index(rows: list[Row], behaviour: Behaviour) -> Index:
    """Index rows as one AITER version reads them."""
    data = behaviour.data
    main, fallback = Index(), Index()
    for row in MERGES[data.merge](rows):
        index = fallback if data.flydsl_fallback and row.tag == data.flydsl_fallback else main
        if index is main and row.tag in data.dropped_tags:
            continue
        gfx = (row.gfx or "*") if data.key_has_gfx else ""
        index.any_gfx = index.any_gfx or gfx == "*"
        before, after = (gfx, *row[2:8]), row[9:15]
        index.shapes.add((row.cu_num, *row[4:8]))
        index.exact.setdefault((*before, row.act_type, *after), row)
        if data.act_type != "exact":
            index.any_activation.setdefault((*before, "", *after), row)
    main.without_flydsl = fallback if data.flydsl_fallback else None
    return main


def _find(index: Index, mode: str, before: Key, act_type: str, after: Key) -> Row | None:
    if mode != "any":
        row = index.exact.get((*before, act_type, *after))
        if row is not None or mode == "exact":
            return row
    return index.any_activation.get((*before, "", *after))

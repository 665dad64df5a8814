"""The tuned-table lookup: the key, and what each version makes of the activation in it."""

from collections.abc import Hashable
from dataclasses import dataclass, field

from preshuffle.registry.kernels.behaviour import Behaviour
from preshuffle.registry.kernels.merge import MERGES
from preshuffle.registry.kernels.rows import Row

Key = tuple[Hashable, ...]

_TORCH = {
    "bf16": "torch.bfloat16",
    "fp16": "torch.float16",
    "fp32": "torch.float32",
    "fp8": "torch.float8_e4m3fn",
    "fp4x2": "torch.float4_e2m1fn_x2",
    "i4x2": "torch.int4",
    "i8": "torch.int8",
    "uint8": "torch.uint8",
    "uint32": "torch.uint32",
}
_FNUZ = _TORCH | {"fp8": "torch.float8_e4m3fnuz"}


def torch_names(gfx: str) -> dict[str, str]:
    """Return how torch spells AITER's dtypes on an architecture (fp8 is e4m3fnuz on gfx942)."""
    return _FNUZ if gfx == "gfx942" else _TORCH


@dataclass(slots=True)
class Index:
    """Rows by key: with the activation, and without it (the first row in file order answers for any activation)."""

    exact: dict[Key, Row] = field(default_factory=dict)
    any_activation: dict[Key, Row] = field(default_factory=dict)
    any_gfx: bool = False


def build_index(rows: list[Row], behaviour: Behaviour) -> Index:
    """Index rows as one AITER version reads them."""
    data = behaviour.data
    index = Index()
    for row in MERGES[data.merge](rows):
        if row.tag in data.dropped_tags:
            continue
        gfx = (row.gfx or "*") if data.key_has_gfx else ""
        index.any_gfx = index.any_gfx or gfx == "*"
        before, after = (gfx, *row[2:8]), row[9:15]
        index.exact.setdefault((*before, row.act_type, *after), row)
        if data.act_type != "exact":
            index.any_activation.setdefault((*before, "", *after), row)
    return index


@dataclass(frozen=True, slots=True)
class Query:
    """The key of one call, in the tables' spelling; ``token`` is the padded count."""

    gfx: str
    cu_num: int
    token: int
    shape: tuple[int, int, int, int]
    act_type: str
    rest: tuple[str, str, str, str, bool, bool]


def _find(index: Index, mode: str, query: Query, gfx: str, token: int) -> Row | None:
    if mode != "any":
        row = index.exact.get((gfx, query.cu_num, token, *query.shape, query.act_type, *query.rest))
        if row is not None or mode == "exact":
            return row
    return index.any_activation.get((gfx, query.cu_num, token, *query.shape, "", *query.rest))


def lookup(index: Index, behaviour: Behaviour, query: Query) -> Row | None:
    """Return the row that AITER finds for a key.

    The second largest token tier answers where the largest has no row (``tier_retry``), and a row whose architecture
    nobody knows counts for every one, as AITER fills in the GPU that it runs on.
    """
    data = behaviour.data
    tokens = [query.token]
    if query.token in data.tier_retry:
        tokens.append(data.tier_retry[query.token])
    names = [query.gfx, "*"] if index.any_gfx else [query.gfx]
    for token in tokens:
        for gfx in names if data.key_has_gfx else [""]:
            row = _find(index, data.act_type, query, gfx, token)
            if row is not None:
                return row
    return None

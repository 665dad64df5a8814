"""Rows of AITER's tuned tables, and their hazards."""

from dataclasses import dataclass
from typing import Literal, NamedTuple


class Row(NamedTuple):
    """One row of a fused-MoE table (``tuned_fmoe.csv`` and ``model_configs/``).

    Attributes:
        source: ``file:line``.
        gfx: Architecture; ``""`` if the row names none and its ``cu_num`` belongs to no known one.
        gfx_given: Whether the row itself names the architecture.
        run_1stage: As AITER reads it: any non-zero value, a shifted ``419`` too, means one stage.
    """

    source: str
    gfx: str
    cu_num: int
    token: int
    model_dim: int
    inter_dim: int
    expert: int
    topk: int
    act_type: str
    dtype: str
    q_dtype_a: str
    q_dtype_w: str
    q_type: str
    use_g1u1: int
    doweight_stage1: int
    block_m: int
    ksplit: int
    kernel1: str
    kernel2: str
    run_1stage: bool
    flat: bool
    us: float
    tag: str
    gfx_given: bool


class GroupedRow(NamedTuple):
    """One row of the gfx1250 grouped table (``tuned_grouped_fmoe.csv``).

    An empty key cell matches anything.

    Attributes:
        source: ``file:line``.
        key: The key cells that are not empty, by column.
        us: Measured time; AITER takes the matching row with the lowest.
    """

    source: str
    key: tuple[tuple[str, str], ...]
    tile_m: int
    kernel1: str
    kernel2: str
    us: float


@dataclass(frozen=True, slots=True)
class Hazard:
    """Defect of a table that AITER resolves without an error.

    It does so silently, differently on each machine, or by rewriting files.

    Attributes:
        code: ``stale_row`` (it names no known kernel, or holds what no AITER reads) or ``ambiguous_key`` (more than
            one architecture, activation or row can answer).
        message: What, and what AITER makes of it.
        source: ``file:line`` of the first row meant.
    """

    code: Literal["stale_row", "ambiguous_key"]
    message: str
    source: str


KEY_COLUMNS = (
    "cu_num",
    "token",
    "model_dim",
    "inter_dim",
    "expert",
    "topk",
    "act_type",
    "dtype",
    "q_dtype_a",
    "q_dtype_w",
    "q_type",
    "use_g1u1",
    "doweight_stage1",
)
VALUE_COLUMNS = ("block_m", "ksplit", "kernelName1", "kernelName2")
OPTIONAL_COLUMNS = frozenset(
    {"gfx", "us1", "err1", "us2", "err2", "us", "run_1stage", "xbf16", "flat", "tflops", "bw", "_tag"}
)
GROUPED_KEYS = frozenset({"gfx", "gate_mode", *KEY_COLUMNS}) - {"use_g1u1", "doweight_stage1"}

# AITER's map for rows that name no architecture (aiter/jit/core.py, gfx_from_cu_num).
GFX_OF_CU_NUM = {256: "gfx950", 80: "gfx942", 304: "gfx942"}
# Architectures that report the same number of compute units (facts of AITER's build targets).
SHARED_CU_NUM = {256: ("gfx950", "gfx1250")}

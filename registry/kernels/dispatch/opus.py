"""Opus kernels (a8w4): when AITER discards rows, and when it raises."""

import re

from preshuffle.registry.kernels.dispatch.case import DispatchCase
from preshuffle.registry.kernels.errors import DispatchError
from preshuffle.registry.kernels.tables.rows import Row

_SORT_BLOCK = re.compile(r"_sbm(\d+)(?:_|$)")
_STAGE1_ACTIVATIONS = frozenset({"Silu", "Swiglu", "Situv2"})


def sort_block_m(kernel2: str) -> int | None:
    """Return the token-sort block size in an Opus kernel name.

    None where the name has none.

    Example:
        >>> sort_block_m("opus_moe2_afp8_wfp4_fp8_t64x256x256_sbm64_rbn3584")
        64
    """
    match = _SORT_BLOCK.search(kernel2)
    return int(match[1]) if match else None


def _stage1_objection(case: DispatchCase, row: Row) -> str | None:
    if not row.kernel1.startswith("opus_moe1_") or "opus_stage1" not in case.behaviour.data.features:
        return None
    if case.call.activation not in _STAGE1_ACTIVATIONS:
        return f"Opus stage 1 does not do {case.call.activation}"
    return None


def _stage2_objection(case: DispatchCase, row: Row) -> str | None:
    if not row.kernel2.startswith("opus_"):
        return None
    needed = sort_block_m(row.kernel2)
    objections = (
        (case.call.gfx != "gfx950", f"Opus stage 2 needs gfx950, not {case.call.gfx}"),
        (case.call.ep, "Opus stage 2 knows no expert mask"),
        (case.call.bias, "Opus stage 2 adds no bias"),
        (needed is None, f"{row.kernel2!r} is no known Opus kernel"),
        (needed != row.block_m, f"Opus stage 2 needs block_m {needed}, the row has {row.block_m}"),
    )
    return next((text for applies, text in objections if applies), None)


def objection(case: DispatchCase, row: Row) -> str | None:
    """Return why AITER discards an Opus row; None where it does not."""
    data = case.behaviour.data
    if "opus" not in data.features or not (row.kernel1.startswith("opus_") or row.kernel2.startswith("opus_")):
        return None
    if data.opus_needs_shuffled and not case.call.is_shuffled:
        return "Opus needs is_shuffled on w1 and w2"
    return _stage1_objection(case, row) or _stage2_objection(case, row)


def check_bypassed(case: DispatchCase, row: Row) -> None:
    """Raise AITER's error for a bypassed Opus row.

    AITER still parses such a row, with the heuristic's block size.

    Raises:
        DispatchError: ``ValueError``, if the block sizes differ.
    """
    if not row.kernel2.startswith("opus_") or "opus" not in case.behaviour.data.features:
        return
    needed = sort_block_m(row.kernel2)
    if needed != case.block_m:
        raise DispatchError("ValueError", f"requires sort block_m={needed}, got tuned block_m={case.block_m}")

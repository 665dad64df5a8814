"""Identification of ranks that are cut by whole blocks, by a buffer's padded size, or wrongly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from preshuffle.layouts import apply_layout
from preshuffle.layouts.forensics import Identification, identify
from preshuffle.registry import Query
from preshuffle.registry.base.words import Role

EXPERTS, HIDDEN, INNER, TP, BUFFER = 2, 256, 1536, 8, 256
ROLES: tuple[Role, ...] = ("w13_weight", "w2_weight")


def plain(role: Role) -> torch.Tensor:
    """Return random fp8 codes of the whole tensor."""
    shape = (EXPERTS, 2 * INNER, HIDDEN) if role == "w13_weight" else (EXPERTS, HIDDEN, INNER)
    codes = torch.randint(1, 120, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(len(role)))
    return codes.view(torch.float8_e4m3fn)


def live(role: Role, start: int, size: int) -> torch.Tensor:
    """Return a rank's laid-out buffer of 256 values that holds a slice of the intermediate size."""
    source, stop = plain(role).view(torch.uint8), min(start + size, INNER)
    if role == "w13_weight":
        buffer = torch.zeros(EXPERTS, 2, BUFFER, HIDDEN, dtype=torch.uint8)
        buffer[:, :, : stop - start] = source.view(EXPERTS, 2, INNER, HIDDEN)[:, :, start:stop]
        buffer = buffer.view(EXPERTS, 2 * BUFFER, HIDDEN)
    else:
        buffer = torch.zeros(EXPERTS, HIDDEN, BUFFER, dtype=torch.uint8)
        buffer[:, :, : stop - start] = source[:, :, start:stop]
    return apply_layout(buffer.view(torch.float8_e4m3fn), "sep16")


def found(role: Role, start: int, size: int, **fields: Any) -> Identification:
    """Identify such a buffer."""
    query = {
        "model": "test/model",
        "arch": "gfx950",
        "tp": TP,
        "weight_dtype": "fp8",
        "quant_type": "per_1x128",
        "gate_up_order": "GGUU",
    }
    return identify(plain(role), live(role, start, size), role=role, query=Query.parse({**query, **fields}))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("rank", [0, 1, 5])
@pytest.mark.parametrize("fields", [{}, {"shard": "whole_blocks"}, {"shard": "padded"}])
def test_slices_of_a_buffers_size_are_found(role: Role, rank: int, fields: dict[str, Any]) -> None:
    one = found(role, 256 * rank, 256, **fields)
    assert (one.verdict, one.layout, one.tp_rank, one.faults) == ("identified", "sep16", rank, ())
    assert "slices of the size of a rank's buffer" in one.name


@pytest.mark.parametrize("role", ROLES)
def test_even_slices_cut_through_blocks(role: Role) -> None:
    one = found(role, 192 * 3, 192)
    assert (one.tp_rank, one.faults) == (3, ("cut_through_groups",))


@pytest.mark.parametrize("role", ROLES)
def test_slices_that_begin_at_the_padded_size_miss_rows(role: Role) -> None:
    one = found(role, 256 * 2, 192)
    assert (one.tp_rank, one.faults) == (2, ("rows_missed",))
    assert one.fixes[0].startswith("slice the checkpoint by what a rank loads, not by the padded size")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("start", "size", "shard", "faults"),
    [
        (256, 256, "groups", {"other_cut"}),
        (192, 192, "whole_blocks", {"cut_through_groups", "other_cut"}),
        (192, 192, "values", {"cut_through_groups"}),
    ],
)
def test_what_the_query_states_is_expected(role: Role, start: int, size: int, shard: str, faults: set[str]) -> None:
    one = found(role, start, size, shard=shard)
    assert set(one.faults) == faults


@pytest.mark.parametrize("role", ROLES)
def test_a_rank_that_holds_none_of_it_is_said_to_be_empty(role: Role) -> None:
    one = found(role, INNER, 0)
    assert one.verdict == "unknown"
    assert "this rank holds none of it" in one.name


def test_tp_that_is_not_known_is_not_guessed_by_buffers() -> None:
    one = found("w13_weight", 256, 256, tp=6)
    assert (one.verdict, one.tp, one.faults) == ("identified", 6, ())
    assert "buffer" not in one.name

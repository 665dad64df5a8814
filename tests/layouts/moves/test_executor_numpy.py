"""Moves on one thread give what torch's executor gives, wherever the bytes begin."""

from __future__ import annotations

import pytest
import torch

from preshuffle.layouts.loader.single import layout_of
from preshuffle.layouts.moves import lay_out, lay_out_on_thread
from preshuffle.registry import PlainView, plan_copy


@pytest.mark.parametrize("begin", [0, 1, 8])
@pytest.mark.parametrize("layout", ["plain", "sep16"])
@pytest.mark.parametrize("live", [(64, 256), (48, 200)])
def test_the_same_bytes_at_every_address(layout: str, live: tuple[int, int], begin: int) -> None:
    bound = layout_of(layout).bind(2, 64, 256)
    rows, k = live
    plan = plan_copy(bound, PlainView(2, 1, rows, k, rows * k, 0, k))
    memory = torch.randint(0, 256, (2 * rows * k + 16,), dtype=torch.uint8)
    wanted = torch.zeros(plan.nbytes, dtype=torch.uint8)
    lay_out(plan, memory[begin : begin + 2 * rows * k].clone(), wanted, 0)
    found = torch.zeros(plan.nbytes + 16, dtype=torch.uint8)
    lay_out_on_thread(plan, memory[begin : begin + 2 * rows * k], found[begin : begin + plan.nbytes])
    assert found[begin : begin + plan.nbytes].equal(wanted)

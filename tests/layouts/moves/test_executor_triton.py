"""GPU executor: torch's bytes, and 128-bit moves on AMD."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from preshuffle.layouts.loader.single import layout_of
from preshuffle.layouts.moves.cycles import plan_cycles
from preshuffle.layouts.moves.executor_triton import plan_in_place
from preshuffle.layouts.moves.half_join import plan_half_join
from preshuffle.layouts.moves.move import Move, move_of
from preshuffle.registry import PlainView, Registry, plan_copy

TESTS = Path(__file__).parents[2]
WIDE = {"dwordx4", "b128"}


@cache
def child(name: str, **environment: str) -> tuple[dict[str, Any], ...]:
    """Run a support module in a child process.

    TRITON_INTERPRET counts only before Triton is imported.
    """
    pytest.importorskip("triton")
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, **environment, "PYTHONPATH": path}
    command = [sys.executable, "-m", f"support.tensors.{name}"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(line) for line in done.stdout.splitlines())


def lines() -> tuple[dict[str, Any], ...]:
    return child("triton_moves") if torch.cuda.is_available() else child("triton_moves", TRITON_INTERPRET="1")


def moves() -> tuple[dict[str, Any], ...]:
    return tuple(line for line in lines() if "layout" in line and "padded" not in line)


def test_pads_are_written_in_the_same_pass() -> None:
    padded = [line for line in lines() if "padded" in line]
    assert [line for line in padded if not line["equal"]] == []
    assert {line["kernel"] for line in padded} == {"copy_padded", "transpose_padded"}
    assert {"e8", "e8_gui16", "sep16", "gui16", "plain"} <= {line["layout"] for line in padded}
    constants = [line["constants"] for line in padded]
    assert {one["W"] for one in constants if "W" in one} == {1, 2, 4}
    assert {one["HALVES"] for one in constants if "HALVES" in one} == {True, False}


def test_the_kernel_takes_the_fingerprints_that_torch_takes() -> None:
    spans = [line for line in lines() if "span" in line]
    assert len(spans) == 9
    assert all(line["equal"] for line in spans)


def test_every_move_of_every_layout_is_the_same_bytes() -> None:
    assert [line for line in moves() if not line["equal"] or line["in_place"] is False] == []
    assert {line["layout"] for line in moves()} == set(Registry.default().book.layouts)
    assert {line["kernel"] for line in moves()} == {"copy_units", "transpose_words", "gather_units"}


@pytest.mark.parametrize("layout", ["sep16", "e8", "n32k4", "gui16", "e8_gui16"])
def test_layouts_of_bands_go_in_place(layout: str) -> None:
    assert any(line["in_place"] for line in moves() if line["layout"] == layout)


@pytest.mark.parametrize("gfx", ["gfx942", "gfx950", "gfx1250"])
@pytest.mark.parametrize("case", ["sep16", "sep16 in place", "sep16 with pads", "gui16"])
def test_weights_move_in_128_bit_loads_and_stores_on_amd(case: str, gfx: str) -> None:
    (line,) = (line for line in child("amd_isa") if (line["case"], line["gfx"]) == (case, gfx))
    assert {name.rpartition("_")[2] for name in line["memory"]} <= WIDE
    assert {name.split("_")[1] for name in line["memory"]} == {"load", "store"}


@pytest.mark.parametrize("gfx", ["gfx942", "gfx950", "gfx1250"])
@pytest.mark.parametrize("case", ["e8", "e8 in place", "e8_gui16", "e8 of 90 groups"])
def test_scales_are_written_in_128_bit_stores_on_amd(case: str, gfx: str) -> None:
    (line,) = (line for line in child("amd_isa") if (line["case"], line["gfx"]) == (case, gfx))
    stores = {name.rpartition("_")[2] for name in line["memory"] if "_store_" in name}
    assert stores
    assert stores <= WIDE


@pytest.mark.parametrize("gfx", ["gfx942", "gfx950", "gfx1250"])
@pytest.mark.parametrize(
    ("case", "kernel"), [("gui16 along cycles", "permute_cycles"), ("e8_gui16 joined", "join_halves")]
)
def test_what_moves_beyond_its_band_is_compiled_for_amd(case: str, kernel: str, gfx: str) -> None:
    (line,) = (line for line in child("amd_isa") if (line["case"], line["gfx"]) == (case, gfx))
    assert line["kernel"] == kernel
    stores = {name.rpartition("_")[2] for name in line["memory"] if "_store_" in name}
    assert stores
    assert stores <= WIDE


def test_halves_that_are_joined() -> None:
    """Which layouts of a gpt-oss scale are joined, with which scratch."""
    joined = {name: plan_half_join(laid_in_place(name)) for name in ("e8", "e8_gui16", "n32k4_gurow")}
    assert {name for name, plan in joined.items() if plan is not None} == {"e8_gui16"}
    plan = joined["e8_gui16"]
    assert plan is not None
    assert (plan.blocks, plan.half, plan.bands, plan.tiles) == (128, 3072 * 96 // 4, 192, 12)


def laid_in_place(name: str) -> Move:
    layout = layout_of(name)
    halves = 2 if layout.pattern.splits_gate_up else 1
    view = PlainView(128, halves, 6144 // halves, 96, 6144 * 96, 6144 // halves * 96, 96)
    return move_of(plan_copy(layout.bind(128, 6144, 96), view).copies[0], "lay out")


def test_buffers_that_begin_between_words_are_moved_too() -> None:
    """A buffer that is not word-aligned avoids the word transpose."""
    assert [line for line in moves() if line["kernel"] and not line["shifted"]] == []


@pytest.mark.parametrize(("rows", "k"), [(6144, 1536), (1024, 384), (96, 64), (512, 3584)])
def test_the_cycles_of_a_block_are_its_permutation(rows: int, k: int) -> None:
    bound = layout_of("gui16").bind(3, rows, k)
    view = PlainView(3, 2, rows // 2, k, rows * k, rows // 2 * k, k)
    cycles = plan_cycles(move_of(plan_copy(bound, view).copies[0], "lay out"))
    assert cycles is not None
    bands = rows // 16
    assert (cycles.blocks, len(cycles.order)) == (3, bands)
    assert sum(length for _, length in cycles.cycles) == bands
    for first, length in cycles.cycles:
        place = first
        for _ in range(length):
            assert bound.source(place * 16 * k)[1] == cycles.order[place] * 16
            place = cycles.order[place]
        assert place == first


@pytest.mark.parametrize("layout", ["sep16", "e8_gui16"])
def test_what_goes_in_bands_or_in_bytes_has_no_cycles(layout: str) -> None:
    halves = 2 if layout == "e8_gui16" else 1
    view = PlainView(2, halves, 64 // halves, 64, 64 * 64, 64 // halves * 64, 64)
    assert plan_cycles(move_of(plan_copy(layout_of(layout).bind(2, 64, 64), view).copies[0], "lay out")) is None


@pytest.mark.parametrize(
    ("layout", "steps"), [("sep16", 1), ("gui16", 1), ("e8", 1), ("e8_gui16", 2), ("gui16_klane", 0)]
)
def test_passes_in_place(layout: str, steps: int) -> None:
    entry = layout_of(layout)
    halves = 2 if entry.pattern.splits_gate_up else 1
    view = PlainView(128, halves, 6144 // halves, 192, 6144 * 192, 6144 // halves * 192, 192)
    assert len(plan_in_place(move_of(plan_copy(entry.bind(128, 6144, 192), view).copies[0], "lay out"))) == steps

"""Runs beyond the usual: K split over blocks, experts beyond 2^31 bytes."""

from __future__ import annotations

import numpy as np

from preshuffle.layouts.derive import KernelRun, LayerSizes, NumbersTrial, kind_of, random_routing
from preshuffle.layouts.derive.kernels.routing import sort_into_tiles
from preshuffle.layouts.derive.kernels.weight_formats import Floats
from support.kernels import book_layouts, program_of

STEM = "fmoe_stage1_bf16_pertokenFp8_g1u1_16x128_4tg_pf2"
ARCH = "gfx942"
EXPERT_BYTES = 2 * 256 * 512


def test_k_split_over_blocks_gives_the_same_numbers() -> None:
    kind, sizes, layouts = kind_of(STEM), LayerSizes(experts=2, inter_dim=256, model_dim=1024), book_layouts()
    run = KernelRun(program_of(STEM, ARCH), kind, sizes, random_routing(sizes, kind.tile_m), split_k=1)
    trial = NumbersTrial(run, layouts)
    scale = {"w13_weight_scale": layouts["plain"]}
    assert trial.relative_error({"w13_weight": layouts["sep16"], **scale}) < 0.003
    assert trial.relative_error({"w13_weight": layouts["sep32"], **scale}) > 0.5


def outputs_with_expert_at(experts: int, byte: int) -> Floats:
    """Run the last of many experts, with its weights at some byte of w13 and zeros elsewhere."""
    kind, generator = kind_of(STEM), np.random.default_rng(9)
    sizes = LayerSizes(experts=experts, inter_dim=256, model_dim=512)
    routing = sort_into_tiles([[]] * (experts - 1) + [list(range(kind.tile_m))], kind.tile_m, kind.tile_m)
    run = KernelRun(program_of(STEM, ARCH), kind, sizes, routing)
    codes = (
        generator.integers(0x20, 0x40, EXPERT_BYTES, np.uint8) | generator.integers(0, 2, EXPERT_BYTES, np.uint8) << 7
    )
    run.set_tensors({"x": generator.integers(0x20, 0x40, kind.tile_m * 512, np.uint8)})
    run.set_tensors({"x_scale": np.full(kind.tile_m, 0.5, np.float32)})
    run.memory.bytes_of("w13")[byte : byte + EXPERT_BYTES] = codes
    run.memory.bytes_of("w13_scale").view(np.float32)[-512:] = 0.5
    return run.run()


def test_an_expert_beyond_2_gib_is_read_as_one_at_the_start() -> None:
    first = outputs_with_expert_at(1, 0)
    assert np.abs(first).max() > 0.1
    assert (outputs_with_expert_at(12_000, 11_999 * EXPERT_BYTES) == first).all()  # 3.1 GB


def test_this_kernel_counts_an_experts_place_in_32_bits() -> None:
    first = outputs_with_expert_at(1, 0)
    assert not outputs_with_expert_at(17_000, 16_999 * EXPERT_BYTES).any()
    assert (outputs_with_expert_at(17_000, 16_999 * EXPERT_BYTES % 2**32) == first).all()

"""Experts beyond 2^31 and 2^32 bytes of weights, in sparse memory: needs what test_kernels.py needs."""

from __future__ import annotations

import numpy as np
import pytest

from preshuffle.layouts.derive import BuildOptions, open_kernel
from preshuffle.layouts.derive.kernels.routing import sort_into_tiles
from preshuffle.layouts.derive.kernels.weight_formats import Floats
from support.aiter.trees import aiter_tree
from support.flydsl.operations import ALL

assert ALL
pytestmark = pytest.mark.slow
STAGE_1 = "flydsl_moe1_afp4_wfp4_bf16_t32x64x256"
STAGE_2 = "flydsl_moe2_afp4_wfp4_bf16_t32x128x256_atomic"
HALF, QUARTER = 0x7C, 0x7D
"""e8m0 bytes."""


def outputs_of_the_last_expert(name: str, experts: int, at: int | None = None) -> Floats:
    """Run the last of many experts, with its weights in its place or that of another, zeros elsewhere."""
    pytest.importorskip("flydsl", reason="flydsl is not installed: pip install flydsl")
    kernel = open_kernel(name, str(aiter_tree()), options=BuildOptions(experts=experts))
    sizes, generator = kernel.sizes(), np.random.default_rng(9)
    tokens = [*([[]] * (experts - 1)), list(range(32))]
    run = kernel.run(sizes, sort_into_tiles(tokens, 32, kernel.kind.tile_m, least_top_k=kernel.top_k))
    role = kernel.kind.family.roles[0]
    buffer, weight, scale = role.removesuffix("_weight"), run.weight_size(role), run.scale_size(role)
    run.set_activations(run.x_format.encode(generator.integers(-2, 3, run.x_shape), run.arch))
    run.memory.bytes_of("x_scale")[:] = HALF
    size, place = weight // experts, experts - 1 if at is None else at
    run.memory.bytes_of(buffer)[place * size :][:size] = generator.integers(0, 256, size, np.uint8)
    run.memory.bytes_of(f"{buffer}_scale")[scale - scale // experts :] = QUARTER
    return run.run()


@pytest.mark.parametrize(("name", "experts"), [(STAGE_1, 17_000), (STAGE_1, 33_000), (STAGE_2, 33_000)])
def test_an_expert_beyond_2_gib_is_read_as_one_at_the_start(name: str, experts: int) -> None:
    first = outputs_of_the_last_expert(name, 1)
    assert np.abs(first).max() > 0.1
    assert (outputs_of_the_last_expert(name, experts) == first).all()


def test_stage_2_counts_an_experts_place_in_32_bits() -> None:
    first = outputs_of_the_last_expert(STAGE_2, 1)
    experts, wrapped = 66_000, 65_999 - 2**32 // (512 * 256 // 2)
    assert not outputs_of_the_last_expert(STAGE_2, experts).any()
    assert (outputs_of_the_last_expert(STAGE_2, experts, wrapped) == first).all()

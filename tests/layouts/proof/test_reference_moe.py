"""Reference MoE on laid-out bytes equals plain MoE.

Both layouts, every TP and EP.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from preshuffle.layouts import Checkpoint, apply, write_checkpoint
from preshuffle.layouts.proof.reference import laid_out_forward, plain_forward, random_routing, relative_error
from preshuffle.layouts.tensors.mxfp4 import decode_e8m0, decode_fp4
from preshuffle.registry import Query, Registry
from support.tensors.moe import ACTIVATIONS, SMALL, hf_config

CONFIG = hf_config()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), CONFIG)


def query(checkpoint: Checkpoint, activation: str, tp: int, ep: int) -> Query:
    return Registry.default().query_from_hf_config(
        checkpoint.folder, arch="gfx950", activation_dtype=activation, tp=tp, ep=ep
    )


@pytest.mark.parametrize("ep", [1, 2])
@pytest.mark.parametrize("tp", [1, 2, 4, 8])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_ranks_add_up_to_the_checkpoint(checkpoint: Checkpoint, activation: str, tp: int, ep: int) -> None:
    sharded = query(checkpoint, activation, tp, ep)
    decision = Registry.default().resolve(sharded)
    x = torch.randn(6, SMALL["hidden_size"], dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    unsharded = query(checkpoint, activation, 1, 1)
    for ep_rank in range(ep):
        experts = SMALL["num_experts"] // ep
        routing = random_routing(6, experts, 2, seed=ep_rank)
        everything = checkpoint.rank(0, unsharded)
        local = {role: tensor[ep_rank * experts : (ep_rank + 1) * experts] for role, tensor in everything.items()}
        wanted = plain_forward(local, decision, x, routing)
        found = torch.zeros_like(wanted)
        for tp_rank in range(tp):
            tensors = checkpoint.rank(0, sharded, tp_rank=tp_rank, ep_rank=ep_rank)
            apply(tensors, decision)
            found += laid_out_forward(tensors, decision, x, routing)
        assert relative_error(found, wanted) < 1e-12


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gpt_oss_on_eight_ranks(tmp_path: Path, activation: str) -> None:
    """The intermediate size is gpt-oss's own: its cut leaves the last rank less. Hidden 320 is padded as 2880 is."""
    real = write_checkpoint(tmp_path, {**CONFIG, "hidden_size": 320, "intermediate_size": 2880, "num_local_experts": 2})
    unsharded, sharded = query(real, activation, 1, 1), query(real, activation, 8, 1)
    decision = Registry.default().resolve(sharded)
    x = torch.randn(3, 320, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    routing = random_routing(3, 2, 2)
    wanted = plain_forward(real.rank(0, unsharded), decision, x, routing)
    found = torch.zeros_like(wanted)
    for tp_rank in range(8):
        tensors = real.rank(0, sharded, tp_rank=tp_rank)
        apply(tensors, decision)
        found += laid_out_forward(tensors, decision, x, routing)
    assert relative_error(found, wanted) < 1e-12


@pytest.mark.parametrize(("laid", "read"), [("fp4x2", "bf16"), ("bf16", "fp4x2")])
def test_bytes_of_the_other_layout_give_nonsense(checkpoint: Checkpoint, laid: str, read: str) -> None:
    plain = checkpoint.rank(0, query(checkpoint, laid, 1, 1))
    tensors = dict(plain)
    decisions = {dtype: Registry.default().resolve(query(checkpoint, dtype, 1, 1)) for dtype in (laid, read)}
    apply(tensors, decisions[laid])
    x = torch.randn(4, SMALL["hidden_size"], dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    routing = random_routing(4, SMALL["num_experts"], 2)
    wanted = plain_forward(plain, decisions[laid], x, routing)
    assert relative_error(laid_out_forward(tensors, decisions[laid], x, routing), wanted) < 1e-12
    assert relative_error(laid_out_forward(tensors, decisions[read], x, routing), wanted) > 0.5


def test_fp4_and_e8m0_codes() -> None:
    codes = torch.tensor([0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE], dtype=torch.uint8)
    magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    assert decode_fp4(codes).tolist() == [*magnitudes, *(-value for value in magnitudes)]
    assert decode_e8m0(torch.tensor([126, 127, 128], dtype=torch.uint8)).tolist() == [0.5, 1.0, 2.0]

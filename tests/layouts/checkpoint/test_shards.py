"""Loaders that cut the intermediate size by whole blocks, or by the size that a rank's buffer is padded to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from preshuffle.layouts import apply, apply_layout, inverse, write_checkpoint
from preshuffle.layouts.checkpoint.part import _filled, unpack_int32
from preshuffle.registry import Decision, NoRecipeError, Query, QueryError
from preshuffle.registry.entries import CheckpointTensor
from support.book.strategies import REGISTRY
from support.tensors.moe import hf_config

QWEN = "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"
SMALL = {"hidden_size": 256, "num_experts": 2, "top_k": 1}


def decide(**fields: Any) -> Decision:
    return REGISTRY.resolve(Query.parse({"model": QWEN, "arch": "gfx950", "tp": 8, **fields}))


@pytest.mark.parametrize(
    "fields",
    [
        {"engine": "sglang"},
        {"engine": "sglang@0.5.21"},
        {"engine": "vllm", "env": {"--moe-backend": "aiter"}},
        {"shard": "whole_blocks"},
    ],
)
def test_whole_blocks_give_the_first_ranks_256_rows(fields: dict[str, Any]) -> None:
    tensors = decide(**fields).tensors
    assert tensors["w13_weight"].logical_shape == tensors["w13_weight"].physical_shape == (128, 512, 4096)
    assert tensors["w2_weight"].logical_shape == (128, 4096, 256)
    assert tensors["w13_weight_scale"].logical_shape == (128, 4, 32)
    assert tensors["w13_weight"].short_shape == (128, 0, 4096)  # 1536 rows are six ranks' blocks


def test_vllm_raises_without_a_backend_and_a_query_wins_over_the_rule() -> None:
    for fields in ({"engine": "vllm"}, {"engine": "sglang", "shard": "groups"}, {}):
        with pytest.raises(NoRecipeError, match="multiples of 128, found 192"):
            decide(**fields)


def test_glm_channels_are_cut_by_aiters_padding_in_sglang() -> None:
    tensors = decide(model="zai-org/GLM-4.7-FP8", engine="sglang").tensors
    assert tensors["w13_weight"].physical_shape[1:] == (512, 5120)


def test_nothing_changes_where_a_share_is_whole_blocks() -> None:
    assert decide(engine="sglang", tp=4).tensors == decide(engine="sglang", tp=4, shard="groups").tensors


@pytest.mark.parametrize(("tp", "rows", "last"), [(2, 1536, 1344), (4, 768, 576)])
def test_padded_slices_of_gpt_oss(tp: int, rows: int, last: int) -> None:
    tensors = decide(model="openai/gpt-oss-120b", engine="vllm", tp=tp, shard="padded").tensors
    w13, w2 = tensors["w13_weight"], tensors["w2_weight"]
    assert (w13.logical_shape[1], w13.physical_shape[1], w13.short_shape[1]) == (2 * rows, 2 * rows, 2 * last)  # type: ignore[index]
    assert (w2.logical_shape[2], w2.pad.k) == (rows, 0)


def test_values_that_cut_a_group_are_refused() -> None:
    with pytest.raises(QueryError, match="360 values cut through groups of 32"):
        decide(model="openai/gpt-oss-120b", shard="values")
    even = decide(model="openai/gpt-oss-120b", tp=2, shard="values").tensors
    assert even == decide(model="openai/gpt-oss-120b", tp=2).tensors


def random(*shape: int) -> torch.Tensor:
    return torch.randint(0, 120, shape, dtype=torch.uint8).view(torch.float8_e4m3fn)


def test_apply_takes_every_ranks_buffer() -> None:
    """A rank's buffer is whole blocks; what it does not load is zero, and lies where the layout puts it."""
    decision = decide(engine="sglang", intermediate_size=640, tp=4, **SMALL)  # 256, 256, 128 and no rows
    assert decision.tensors["w13_weight"].short_shape == (2, 0, 256)
    for loaded in (256, 128, 0):
        w13, w2 = random(2, 2, 256, 256), random(2, 256, 256)
        w13.view(torch.uint8)[:, :, loaded:] = 0
        w2.view(torch.uint8)[:, :, loaded:] = 0
        plain = {"w13_weight": w13.view(2, 512, 256), "w2_weight": w2}
        scales = {"w13_weight_scale": torch.rand(2, 4, 2), "w2_weight_scale": torch.rand(2, 2, 2)}
        laid = {role: tensor.clone() for role, tensor in (plain | scales).items()}
        apply(laid, decision)
        for role, tensor in plain.items():
            assert torch.equal(laid[role].view(torch.uint8), apply_layout(tensor, "sep16").view(torch.uint8))
        inverse(laid)
        assert all(torch.equal(laid[role].view(torch.uint8), plain[role].view(torch.uint8)) for role in plain)


CONFIGS: dict[str, dict[str, Any]] = {
    "sglang block fp8": {
        "model_type": "qwen3_moe",
        "hidden_size": 256,
        "moe_intermediate_size": 640,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "hidden_act": "silu",
        "num_hidden_layers": 1,
        "quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
    },
    "gpt-oss padded": hf_config(layers=1),
}
CUTS: list[tuple[str, dict[str, Any], list[int]]] = [
    ("sglang block fp8", {"engine": "sglang"}, [256, 256, 128, 0]),
    ("sglang block fp8", {"engine": "vllm", "env": {"--moe-backend": "aiter"}}, [256, 256, 128, 0]),
    ("sglang block fp8", {"shard": "whole_blocks"}, [256, 256, 128, 0]),
    ("sglang block fp8", {"engine": "sglang", "tp": 5}, [128, 128, 128, 128, 128]),
    ("gpt-oss padded", {"engine": "vllm", "shard": "padded"}, [256, 224, 0, 0]),
    ("gpt-oss padded", {"engine": "vllm"}, [128, 128, 128, 96]),
]


@pytest.mark.parametrize(("name", "fields", "sizes"), CUTS)
def test_a_checkpoint_is_cut_as_the_engines_loader_does(
    tmp_path: Path, name: str, fields: dict[str, Any], sizes: list[int]
) -> None:
    checkpoint = write_checkpoint(tmp_path, CONFIGS[name])
    requested: dict[str, Any] = {"arch": "gfx950", "tp": 4, **fields}
    query = REGISTRY.query_from_hf_config(tmp_path, **requested)
    assert [piece.size for piece in REGISTRY.loader_cut(query).shards(query).pieces] == sizes
    whole = checkpoint.rank(0, REGISTRY.query_from_hf_config(tmp_path, arch="gfx950"))
    decision = REGISTRY.resolve(query)
    found: list[torch.Tensor] = []
    for rank, size in enumerate(sizes):
        plain = checkpoint.rank(0, query, tp_rank=rank)
        w13, w2 = plain["w13_weight"].view(torch.uint8), plain["w2_weight"].view(torch.uint8)
        columns = w2.shape[2] if name.startswith("sglang") else 2 * w2.shape[2]
        assert not w2[:, :, size * w2.shape[2] // columns :].any()
        found.append(w2[:, :, : size * w2.shape[2] // columns].clone())
        if query.gate_up_order == "GGUU":
            halves = w13.view(w13.shape[0], 2, -1, w13.shape[2])
            assert not halves[:, :, size:].any()
        else:
            assert not w13[:, 2 * size :].any()
        apply(plain, decision)  # every rank's tensors are what the decision takes
    assert torch.cat(found, 2).equal(whole["w2_weight"].view(torch.uint8))


def test_an_older_engine_is_asked_for_by_its_shard(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, CONFIGS["sglang block fp8"])
    fields: dict[str, Any] = {"arch": "gfx950", "tp": 5, "engine": "sglang@0.5.23"}
    query = REGISTRY.query_from_hf_config(tmp_path, **fields)
    assert REGISTRY.loader_cut(query).rule == "sglang.fp8.block"
    grouped = REGISTRY.query_from_hf_config(tmp_path, **fields, shard="groups")
    assert REGISTRY.loader_cut(grouped).rule is None
    assert checkpoint.rank(0, grouped, tp_rank=4)["w2_weight"].shape == (2, 256, 128)


def test_padded_slices_without_a_recipe_are_refused(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, CONFIGS["sglang block fp8"])
    query = REGISTRY.query_from_hf_config(tmp_path, arch="gfx942", tp=2, engine="nobody", shard="padded")
    with pytest.raises(QueryError, match="a recipe says the padded size, and none answers the query"):
        checkpoint.rank(0, query)


def test_packed_int4_is_filled_with_zeros() -> None:
    words = torch.tensor([[0x76543210]], dtype=torch.int32)
    entry = CheckpointTensor(name="experts.{expert}.weight_packed", dtype="int32", packed=8)
    assert unpack_int32(_filled(words, 1, 2, entry)).tolist() == [[*range(-8, 0), *[0] * 8]]
    kept = CheckpointTensor(name="experts.{expert}.weight", dtype="int32")
    assert _filled(words, 1, 2, kept).tolist() == [[0x76543210, 0]]

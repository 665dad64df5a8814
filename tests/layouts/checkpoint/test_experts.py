"""Checkpoints that store every expert's linear layers separately.

DeepSeek, Kimi, GLM, MiniMax, Qwen, Mixtral.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from preshuffle.layouts import Checkpoint, CheckpointError, apply, inverse, write_checkpoint
from preshuffle.layouts.checkpoint.part import unpack_int32
from preshuffle.registry import Query, QueryError, Registry
from support.book.quantizations import CASES, MODEL
from support.book.strategies import REGISTRY

HIDDEN, INTERMEDIATE, EXPERTS = 256, 256, 4
SMALL = {**MODEL, "hidden_size": HIDDEN, "moe_intermediate_size": INTERMEDIATE, "num_hidden_layers": 2}
NOT_STORED = {"mxfp4", "quark int4 by channel, after fp8 by tensor"}
"""How a checkpoint stores these experts one by one is not in the book."""
SECTIONS = {name: section for name, section, _ in CASES if name not in NOT_STORED}
DEEPSEEK = {
    **SMALL,
    "model_type": "deepseek_v3",
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "quantization_config": SECTIONS["fp8 block"],
}


def config_of(name: str) -> dict[str, Any]:
    return SMALL if SECTIONS[name] is None else {**SMALL, "quantization_config": SECTIONS[name]}


def ask(folder: Path, **fields: Any) -> Query:
    return Registry.default().query_from_hf_config(folder, arch="gfx950", **fields)


def stored(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(path))
    return tensors


def seen(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that can be compared bit by bit."""
    return tensor.view(torch.uint8) if tensor.dtype.itemsize == 1 and tensor.dim() else tensor


def expected(tensors: dict[str, torch.Tensor], prefix: str, packed: bool = False) -> dict[str, torch.Tensor]:
    """What one rank of one holds, put together the plain way."""
    parts: dict[str, torch.Tensor] = {}
    suffixes = {name.removeprefix(f"{prefix}.0.gate_proj.") for name in tensors if name.startswith(f"{prefix}.0.gate_")}
    for suffix in suffixes:
        kind = {"weight": "weight", "weight_packed": "weight", "input_scale": "input_scale"}.get(suffix, "weight_scale")
        rows, down = [], []
        for expert in range(EXPERTS):
            gate, up, low = (tensors[f"{prefix}.{expert}.{part}_proj.{suffix}"] for part in ("gate", "up", "down"))
            if kind == "weight" and packed:
                gate, up, low = (unpack_int32(part) for part in (gate, up, low))
            if kind == "input_scale":
                rows.append(torch.maximum(gate, up))
            else:
                rows.append(torch.stack([gate, up]) if gate.dim() == 0 else torch.cat([gate, up]))
            down.append(low)
        parts[f"w13_{kind}"], parts[f"w2_{kind}"] = torch.stack(rows), torch.stack(down)
    return parts


@pytest.mark.parametrize("name", SECTIONS)
def test_experts_are_stacked_gates_rows_before_ups(tmp_path: Path, name: str) -> None:
    checkpoint = write_checkpoint(tmp_path, config_of(name))
    found = checkpoint.rank(1, ask(tmp_path))
    wanted = expected(stored(tmp_path), "model.layers.1.mlp.experts", packed="int4" in name)
    assert set(found) == set(wanted)
    for role, tensor in found.items():
        assert seen(tensor).equal(seen(wanted[role]).view(tensor.shape)), role
        assert tensor.is_contiguous()


@pytest.mark.parametrize("name", ["none", "fp8 block", "quark channel", "ct mxfp4", "ct int4", "fp8 static"])
def test_ranks_take_whole_groups_and_nothing_is_lost(tmp_path: Path, name: str) -> None:
    checkpoint = write_checkpoint(tmp_path, config_of(name))
    whole = checkpoint.rank(0, ask(tmp_path))
    for ep_rank in range(2):
        query = ask(tmp_path, tp=2, ep=2)
        ranks = [checkpoint.rank(0, query, tp_rank=rank, ep_rank=ep_rank) for rank in range(2)]
        experts = slice(2 * ep_rank, 2 * ep_rank + 2)
        for role, tensor in whole.items():
            first, second = (seen(rank[role]) for rank in ranks)
            mine = seen(tensor)[experts]
            if tensor.dim() < 3 or (role == "w2_weight_scale" and tensor.shape[2] == 1):
                assert first.equal(mine)
                assert second.equal(mine)
            elif role.startswith("w13"):
                halves = [half.chunk(2, dim=1) for half in mine.chunk(2, dim=1)]
                assert first.equal(torch.cat([half[0] for half in halves], dim=1))
                assert second.equal(torch.cat([half[1] for half in halves], dim=1))
            else:
                assert torch.cat([first, second], dim=2).equal(mine)


@pytest.mark.parametrize("name", ["none", "fp8 block", "quark channel", "quark a4w4", "ct mxfp8"])
def test_what_is_read_can_be_laid_out_and_taken_back(tmp_path: Path, name: str) -> None:
    checkpoint = write_checkpoint(tmp_path, config_of(name))
    query = ask(tmp_path, tp=2)
    decision = REGISTRY.resolve(query)
    plain = checkpoint.rank(1, query, tp_rank=1)
    tensors = {role: tensor.clone() for role, tensor in plain.items()}
    apply(tensors, decision)
    assert not seen(tensors["w13_weight"]).view(-1).equal(seen(plain["w13_weight"]).view(-1))
    inverse(tensors, decision)
    assert all(seen(tensors[role]).equal(seen(plain[role])) for role in plain)


def test_a_dense_layer_has_no_experts(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, DEEPSEEK)
    assert (checkpoint.layers, list(checkpoint.experts)) == (2, [1])
    with pytest.raises(CheckpointError, match=r"layer 0 has no experts; valid: 1\.\.1"):
        checkpoint.rank(0, ask(tmp_path))
    with pytest.raises(CheckpointError, match=r"layer 2; valid: 0\.\.1"):
        checkpoint.rank(2, ask(tmp_path))


@pytest.mark.parametrize("ep", [1, 2])
def test_a_shared_expert_is_the_last_expert_of_every_rank(tmp_path: Path, ep: int) -> None:
    checkpoint = write_checkpoint(tmp_path, DEEPSEEK)
    apart = checkpoint.rank(1, ask(tmp_path))
    tensors = stored(tmp_path)
    query = ask(tmp_path, engine="atom", ep=ep)
    assert (query.num_experts, query.top_k) == (EXPERTS + ep, 3)
    shared = "model.layers.1.mlp.shared_experts."
    down = tensors[f"{shared}down_proj.weight"]
    scale = torch.cat([tensors[f"{shared}{part}_proj.weight_scale_inv"] for part in ("gate", "up")])
    for ep_rank in range(ep):
        found = checkpoint.rank(1, query, ep_rank=ep_rank)
        local = EXPERTS // ep
        assert found["w13_weight"].shape == (local + 1, 2 * INTERMEDIATE, HIDDEN)
        assert seen(found["w2_weight"][-1]).equal(seen(down))
        assert found["w13_weight_scale"][-1].equal(scale)
        mine = slice(ep_rank * local, (ep_rank + 1) * local)
        assert all(seen(found[role][:-1]).equal(seen(apart[role][mine])) for role in apart)


def test_experts_that_are_not_there_are_not_read(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, DEEPSEEK)
    text = "the query counts 7 experts; valid for this checkpoint: 4, or 5 with a shared expert on each"
    with pytest.raises(CheckpointError, match=text):
        checkpoint.rank(1, ask(tmp_path, num_experts=7, top_k=2))
    plain = write_checkpoint(tmp_path / "plain", config_of("none"))
    with pytest.raises(CheckpointError, match="where the shared expert's w13_weight lies is not in the book"):
        plain.rank(1, ask(tmp_path / "plain", num_experts=5, top_k=2))


V4 = {**DEEPSEEK, "model_type": "deepseek_v4", "expert_dtype": "fp4", "first_k_dense_replace": 0}


def test_deepseek_v4_stores_fp4_in_signed_bytes(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, V4)
    tensors = stored(tmp_path)
    assert tensors["layers.0.ffn.experts.0.w1.weight"].dtype == torch.int8
    assert tensors["layers.0.ffn.experts.0.w2.scale"].shape == (HIDDEN, INTERMEDIATE // 32)
    found = checkpoint.rank(0, ask(tmp_path))
    assert found["w13_weight"].dtype == torch.uint8
    gate_up = [tensors[f"layers.0.ffn.experts.3.{name}.weight"].view(torch.uint8) for name in ("w1", "w3")]
    assert found["w13_weight"][3].equal(torch.cat(gate_up))


def test_a_wrappers_names_are_found(tmp_path: Path) -> None:
    config = {**DEEPSEEK, "model_type": "kimi_k25", "text_config": {**DEEPSEEK, "model_type": "kimi_k2"}}
    checkpoint = write_checkpoint(tmp_path, config)
    assert checkpoint.tensors["w2_weight"].name.startswith("language_model.model.layers.{layer}.mlp.experts.")
    expected_rank = checkpoint.rank(1, ask(tmp_path))
    renamed = {name.removeprefix("language_model."): tensor for name, tensor in stored(tmp_path).items()}
    for path in tmp_path.glob("model*"):
        path.unlink()
    save_file(renamed, tmp_path / "model.safetensors")
    found = Checkpoint.open(tmp_path).rank(1, ask(tmp_path))
    assert all(seen(found[role]).equal(seen(expected_rank[role])) for role in found)


def test_experts_that_lie_together_without_quantization(tmp_path: Path) -> None:
    text = {**SMALL, "model_type": "qwen3_5_moe_text", "dtype": "bfloat16"}
    checkpoint = write_checkpoint(tmp_path, {"model_type": "qwen3_5_moe", "text_config": text})
    whole = stored(tmp_path)["model.language_model.layers.0.mlp.experts.gate_up_proj"]
    assert whole.shape == (EXPERTS, 2 * INTERMEDIATE, HIDDEN)
    ranks = [checkpoint.rank(0, ask(tmp_path, tp=2), tp_rank=rank)["w13_weight"] for rank in range(2)]
    gate, up = whole.chunk(2, dim=1)
    assert ranks[1].equal(torch.cat([gate[:, INTERMEDIATE // 2 :], up[:, INTERMEDIATE // 2 :]], dim=1))


def test_layers_that_differ_are_each_read_as_they_are(tmp_path: Path) -> None:
    section = {**SECTIONS["fp8 block"], "modules_to_not_convert": ["model.layers.0.mlp.experts"]}
    checkpoint = write_checkpoint(tmp_path, {**SMALL, "quantization_config": section})
    with pytest.raises(QueryError, match="experts differ between layers"):
        ask(tmp_path)
    assert set(checkpoint.rank(0, ask(tmp_path, layer=0))) == {"w13_weight", "w2_weight"}
    assert "w13_weight_scale" in checkpoint.rank(1, ask(tmp_path, layer=1))


def change(folder: Path, name: str, tensor: torch.Tensor | None) -> None:
    """Replace a stored tensor, or leave it out."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    path = folder / index["weight_map"][name]
    tensors = load_file(path)
    del tensors[name]
    if tensor is None:
        del index["weight_map"][name]
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        tensors[name] = tensor
    save_file(tensors, path)


UP = "model.layers.1.mlp.experts.2.up_proj.weight"


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (None, rf"tensor {UP} \(w13_weight\) is in no shard"),
        (torch.zeros(INTERMEDIATE, HIDDEN), rf"tensor {UP} \(w13_weight\) is float32; valid: fp8_e4m3fn"),
        (
            torch.zeros(INTERMEDIATE, 8).to(torch.float8_e4m3fn),
            rf"tensor {UP}: w13_weight is stored as \(256, 8\) for each expert; the sizes need \(256, 256\)",
        ),
    ],
)
def test_a_damaged_tensor_is_named(tmp_path: Path, tensor: torch.Tensor | None, message: str) -> None:
    write_checkpoint(tmp_path, config_of("fp8 block"))
    change(tmp_path, UP, tensor)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(tmp_path).rank(1, ask(tmp_path))


def test_numbers_may_be_lists_of_one(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, config_of("fp8 static"))
    before = checkpoint.rank(1, ask(tmp_path))
    name = "model.layers.1.mlp.experts.2.up_proj.weight_scale"
    change(tmp_path, name, stored(tmp_path)[name].reshape(1))
    after = Checkpoint.open(tmp_path).rank(1, ask(tmp_path))
    assert all(seen(after[role]).equal(seen(before[role])) for role in before)


def test_int4_comes_as_signed_bytes() -> None:
    words = torch.tensor([[0x76543210, -0x01234568]], dtype=torch.int32)  # the second is 0xFEDCBA98
    assert unpack_int32(words).tolist() == [[*range(-8, 0), *range(8)]]

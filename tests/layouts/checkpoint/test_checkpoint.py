"""Reading one rank's tensors from a sharded checkpoint.

And the errors for one that is damaged.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from preshuffle.layouts import Checkpoint, CheckpointError, write_checkpoint
from preshuffle.layouts.checkpoint.checkpoint import INDEX
from preshuffle.registry import Query, QueryError, Registry
from preshuffle.registry.algebra.shard import cut
from support.tensors.moe import SMALL, hf_config

EXPERTS = "model.layers.{layer}.mlp.experts."
CONFIG = hf_config(layers=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path, CONFIG)
    return tmp_path


def ask(folder: Path, tp: int = 1, ep: int = 1) -> Query:
    return Registry.default().query_from_hf_config(folder, arch="gfx950", tp=tp, ep=ep)


def stored(folder: Path, layer: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"model-{layer + 1:05d}-of-00002.safetensors")


def test_names_and_shapes_are_those_of_gpt_oss(folder: Path) -> None:
    names = json.loads((folder / INDEX).read_text())["weight_map"]
    parts = [f"{half}_proj_{part}" for half in ("gate_up", "down") for part in ("blocks", "scales", "bias")]
    assert set(names) == {EXPERTS.format(layer=layer) + part for layer in (0, 1) for part in parts}
    tensors = stored(folder, 0)
    prefix = EXPERTS.format(layer=0)
    assert tensors[prefix + "gate_up_proj_blocks"].shape == (4, 960, 5, 16)
    assert tensors[prefix + "gate_up_proj_scales"].shape == (4, 960, 5)
    assert tensors[prefix + "down_proj_blocks"].shape == (4, 160, 15, 16)
    assert tensors[prefix + "down_proj_bias"].dtype == torch.bfloat16


@pytest.mark.parametrize("ep", [1, 2])
@pytest.mark.parametrize("tp", [1, 2, 4, 8])
def test_ranks_take_whole_groups_and_nothing_is_lost(folder: Path, tp: int, ep: int) -> None:
    checkpoint, query, layer = Checkpoint.open(folder), ask(folder, tp, ep), 1
    tensors, prefix = stored(folder, layer), EXPERTS.format(layer=layer)
    whole = {
        "w13_weight": tensors[prefix + "gate_up_proj_blocks"].flatten(2),
        "w13_weight_scale": tensors[prefix + "gate_up_proj_scales"],
        "w13_bias": tensors[prefix + "gate_up_proj_bias"],
        "w2_weight": tensors[prefix + "down_proj_blocks"].flatten(2),
        "w2_weight_scale": tensors[prefix + "down_proj_scales"],
    }
    local = SMALL["num_experts"] // ep
    for ep_rank in range(ep):
        parts = [checkpoint.rank(layer, query, tp_rank=rank, ep_rank=ep_rank) for rank in range(tp)]
        experts = slice(ep_rank * local, (ep_rank + 1) * local)
        for role, tensor in whole.items():
            joined = torch.cat([part[role] for part in parts], dim=1 if role.startswith("w13") else 2)
            assert joined.equal(tensor[experts])
        for part, piece in zip(parts, cut(SMALL["intermediate_size"], tp, 32), strict=True):
            assert part["w13_weight"].shape == (local, 2 * piece.size, 80)
            assert part["w2_weight_scale"].shape == (local, 160, piece.size // 32)
            assert all(tensor.is_contiguous() for tensor in part.values())
        bias = tensors[prefix + "down_proj_bias"][experts]
        assert parts[0]["w2_bias"].equal(bias)
        assert all(not part["w2_bias"].any() for part in parts[1:])


def test_a_single_file_needs_no_index(folder: Path) -> None:
    from safetensors.torch import save_file

    expected = Checkpoint.open(folder).rank(1, ask(folder))
    merged = {**stored(folder, 0), **stored(folder, 1)}
    for path in folder.glob("model*"):
        path.unlink()
    save_file(merged, folder / "model.safetensors")
    found = Checkpoint.open(folder).rank(1, ask(folder))
    assert all(found[role].equal(expected[role]) for role in expected)


def _truncate(folder: Path) -> None:
    path = folder / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _garbage(folder: Path) -> None:
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"not a safetensors file at all" * 10)


def _gone(folder: Path) -> None:
    (folder / "model-00001-of-00002.safetensors").unlink()


def _unlisted(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    del index["weight_map"][EXPERTS.format(layer=0) + "down_proj_scales"]
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, r"model-00001-of-00002.safetensors: tensor model.layers.0.* \(w13_weight\) cannot be read"),
        (_garbage, r"model-00001-of-00002.safetensors: tensor .* cannot be read"),
        (_gone, r"model-00001-of-00002.safetensors: tensor .* cannot be read"),
        (_unlisted, r"tensor model.layers.0.mlp.experts.down_proj_scales \(w2_weight_scale\) is in no shard"),
    ],
)
def test_a_damaged_checkpoint_names_file_and_tensor(folder: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(folder).rank(0, ask(folder))


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}', "{}"])
def test_an_index_that_is_none(folder: Path, text: str) -> None:
    (folder / INDEX).write_text(text)
    with pytest.raises(CheckpointError, match="not a safetensors index"):
        Checkpoint.open(folder)


def test_a_folder_without_weights(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors\.index\.json nor model\.safetensors"):
        Checkpoint.open(folder)


def test_what_is_not_there_is_named(folder: Path) -> None:
    checkpoint = Checkpoint.open(folder)
    with pytest.raises(CheckpointError, match=r"layer 2; valid: 0\.\.1"):
        checkpoint.rank(2, ask(folder))
    with pytest.raises(CheckpointError, match=r"rank \(tp 2, ep 0\) is not one of tp=2, ep=1"):
        checkpoint.rank(0, ask(folder, tp=2), tp_rank=2)
    with pytest.raises(QueryError, match="leave the last without any of the 15 groups"):
        checkpoint.rank(0, ask(folder, tp=16))
    with pytest.raises(QueryError, match=r"nowhere: cannot be read"):
        Checkpoint.open(folder / "nowhere")


def test_a_checkpoint_of_other_sizes_than_its_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["intermediate_size"] = 512
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"w13_weight is stored as \(4, 960, 5, 16\); .* need \(4, 1024, 80\)"):
        Checkpoint.open(folder).rank(0, ask(folder))

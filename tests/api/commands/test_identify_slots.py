"""``preshuffle identify`` understands fused shared experts and empty slots behind the routed experts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from preshuffle.api.cli import main
from preshuffle.layouts import Checkpoint, apply, apply_layout, write_checkpoint
from preshuffle.registry import Registry
from support.book.quantizations import CASES, MODEL

SECTIONS = {name: section for name, section, _ in CASES}
CONFIG = {
    **MODEL,
    "model_type": "deepseek_v3",
    "hidden_size": 256,
    "moe_intermediate_size": 256,
    "num_hidden_layers": 2,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "quantization_config": SECTIONS["fp8 block"],
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), CONFIG)


def held(checkpoint: Checkpoint, *, ep: int = 1, ep_rank: int = 0, tp: int = 1, tp_rank: int = 0) -> dict[str, Any]:
    """Return layer 1 as a rank of ATOM holds it: routed experts first, then the fused shared one."""
    registry = Registry.default()
    query = registry.query_from_hf_config(checkpoint.folder, arch="gfx950", engine="atom", ep=ep, tp=tp)
    assert query.num_experts == 8 + ep
    tensors = checkpoint.rank(1, query, ep_rank=ep_rank, tp_rank=tp_rank)
    apply(tensors, registry.resolve(query), last_rank=tp_rank == tp - 1)
    return {role: tensor for role, tensor in tensors.items() if role.endswith("weight")}


def identified(
    checkpoint: Checkpoint, tensors: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, dict[str, dict[str, Any]]]:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "live.safetensors")
    asked = ["identify", "--plain", str(checkpoint.folder), "--live", str(tmp_path), "--layer", "1", "--json", *more]
    code = main(asked)
    out = capsys.readouterr()
    answer = json.loads(out.out)
    return code, answer["tensors"] if code != 2 else {"error": {"text": answer["detail"]}}


@pytest.mark.parametrize("more", [(), ("--engine", "atom"), ("--num-experts", "9"), ("--engine", "vllm@0.33.0")])
def test_a_fused_shared_expert_is_the_last_slot(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    code, found = identified(checkpoint, held(checkpoint), tmp_path, capsys, *more)
    assert code == 0
    for one in found.values():
        assert (one["verdict"], one["layout"], one["faults"]) == ("identified", "sep16", [])
        assert [(slot["number"], slot["holds"]) for slot in one["slots"]] == [(8, "shared")]
        assert one["name"].endswith("; slot 8 holds the shared expert")
        assert one["bytes_read"] <= 1_000_000


@pytest.mark.parametrize("ep_rank", [0, 3])
@pytest.mark.parametrize("more", [(), ("--ep", "4"), ("--ep", "4", "--engine", "atom"), ("--num-experts", "12")])
def test_every_expert_parallel_rank_has_a_slot_of_its_own(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str], ep_rank: int, more: tuple[str, ...]
) -> None:
    code, found = identified(checkpoint, held(checkpoint, ep=4, ep_rank=ep_rank), tmp_path, capsys, *more)
    assert code == 0
    for one in found.values():
        assert (one["ep_rank"], one["ep"], one["layout"]) == (ep_rank, 4, "sep16")
        assert [(slot["number"], slot["holds"]) for slot in one["slots"]] == [(2, "shared")]


def test_a_tensor_parallel_ranks_part_of_the_shared_expert(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = identified(checkpoint, held(checkpoint, tp=2, tp_rank=1), tmp_path, capsys, "--tp", "2")
    assert code == 0
    for one in found.values():
        assert (one["tp_rank"], [slot["holds"] for slot in one["slots"]]) == (1, ["shared"])


def test_a_flat_tensor_takes_its_experts_from_the_others(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = held(checkpoint, ep=2, ep_rank=1)
    tensors["w2_weight"] = tensors["w2_weight"].reshape(-1, tensors["w2_weight"].shape[-1])
    code, found = identified(checkpoint, tensors, tmp_path, capsys)
    assert code == 0
    assert [slot["holds"] for slot in found["w2_weight"]["slots"]] == ["shared"]
    assert found["w2_weight"]["ep_rank"] == 1


def test_empty_slots_are_zeros(checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = held(checkpoint)
    for name, tensor in tensors.items():
        bytes_of = tensor.view(torch.uint8).clone()
        bytes_of[8] = 0
        tensors[name] = torch.cat([bytes_of, torch.zeros_like(bytes_of[:1])])
    code, found = identified(checkpoint, tensors, tmp_path, capsys, "--num-experts", "10")
    assert code == 0
    for one in found.values():
        assert [(slot["number"], slot["holds"]) for slot in one["slots"]] == [(8, "zeros"), (9, "zeros")]
        assert "slot 9 is empty (zeros)" in one["name"]


def test_a_slot_that_holds_something_else_is_wrong(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = held(checkpoint)
    live = tensors["w13_weight"].view(torch.uint8).clone()
    live[8] = live[3]  # another expert's bytes
    code, found = identified(checkpoint, {"w13_weight": live}, tmp_path, capsys)
    one = found["w13_weight"]
    assert code == 1
    assert (one["faults"], [slot["holds"] for slot in one["slots"]]) == (["other_slot"], ["else"])
    assert one["fixes"] == ["load the shared expert into its slot and lay it out as the routed experts"]


def test_a_slot_in_another_layout_is_wrong(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = Registry.default().query_from_hf_config(checkpoint.folder, arch="gfx950", engine="atom")
    plain = checkpoint.rank(1, query)["w13_weight"].view(torch.uint8)
    live = torch.cat([apply_layout(plain[:8].contiguous(), "sep16"), plain[8:]])
    code, found = identified(checkpoint, {"w13_weight": live}, tmp_path, capsys)
    assert code == 1
    assert found["w13_weight"]["slots"][0]["name"] == "holds the shared expert in another layout: plain"


def test_numbers_that_contradict_the_dump_are_an_error(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = identified(checkpoint, held(checkpoint), tmp_path, capsys, "--ep", "1", "--num-experts", "10")
    assert code == 2
    assert "holds 9 experts; at ep 1 and 10 experts in all they would be 10" in found["error"]["text"]


def test_the_screen_shows_the_slots(checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(held(checkpoint), tmp_path / "live.safetensors")
    arguments = ["identify", "--plain", str(checkpoint.folder), "--live", str(tmp_path), "--layer", "1"]
    assert main([*arguments, "--role", "w2_weight"]) == 0
    assert "holds the shared expert" in capsys.readouterr().out

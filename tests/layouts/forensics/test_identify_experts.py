"""``identify`` on checkpoints that store every expert separately."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from preshuffle.layouts import apply, apply_layout, identify, write_checkpoint
from preshuffle.layouts.forensics.checkpoint_layer import JoinedTensors
from preshuffle.layouts.forensics.files import TensorLocation, identify_files
from preshuffle.layouts.forensics.slots import held_experts
from preshuffle.layouts.forensics.source import SourceError, of_tensor
from preshuffle.registry import Registry
from support.book.quantizations import CASES, MODEL
from support.book.strategies import REGISTRY

SECTIONS = {name: section for name, section, _ in CASES}
SMALL: dict[str, Any] = {**MODEL, "hidden_size": 512, "moe_intermediate_size": 256, "num_hidden_layers": 2}


@pytest.mark.parametrize("name", ["none", "ct mxfp4", "quark channel", "mxfp8"])
def test_what_lies_apart_is_identified_as_one(tmp_path: Path, name: str) -> None:
    config = SMALL if SECTIONS[name] is None else {**SMALL, "quantization_config": SECTIONS[name]}
    checkpoint = write_checkpoint(tmp_path / "checkpoint", config)
    query = Registry.default().query_from_hf_config(config, arch="gfx950")
    decision = REGISTRY.resolve(query)
    tensors = {role: tensor.clone() for role, tensor in checkpoint.rank(1, query).items()}
    apply(tensors, decision)
    dump = {
        role: tensor.view(torch.uint8) if tensor.dtype.itemsize == 1 else tensor for role, tensor in tensors.items()
    }
    save_file({role: tensor.contiguous() for role, tensor in dump.items()}, tmp_path / "live.safetensors")
    found = identify_files(
        TensorLocation(tmp_path / "checkpoint"), TensorLocation(tmp_path / "live.safetensors"), layer=1
    )
    assert {role: answer.name for role, answer in found.tensors.items()} == {
        role: tensor.layout for role, tensor in decision.tensors.items()
    }


def test_a_dense_layer_and_a_missing_expert_are_named(tmp_path: Path) -> None:
    config = {**SMALL, "decoder_sparse_step": 2}
    write_checkpoint(tmp_path / "checkpoint", config)
    save_file({"w13_weight": torch.zeros(4, 512, 512)}, tmp_path / "live.safetensors")
    live = TensorLocation(tmp_path / "live.safetensors")
    with pytest.raises(SourceError, match=r"layer 0 has no experts; valid: 1\.\.1"):
        identify_files(TensorLocation(tmp_path / "checkpoint"), live, layer=0)
    index = tmp_path / "checkpoint" / "model.safetensors.index.json"
    name = "model.layers.1.mlp.experts.3.up_proj.weight"
    index.write_text(index.read_text().replace(name, "gone"))
    with pytest.raises(SourceError, match=f"has no tensor {name}"):
        identify_files(TensorLocation(tmp_path / "checkpoint"), live, layer=1)


def test_joined_bytes_are_those_of_the_parts(tmp_path: Path) -> None:
    parts = {f"p{number}": torch.randint(0, 256, (3, 40), dtype=torch.uint8) for number in range(6)}
    save_file(parts, tmp_path / "a.safetensors")
    joined = JoinedTensors("x", [(tmp_path / "a.safetensors", name) for name in parts], experts=3)
    whole = torch.stack(list(parts.values())).flatten()
    assert (joined.shape, joined.nbytes, joined.dtype) == ((3, 6, 40), 720, "U8")
    assert not joined.known(torch.arange(720)).all()
    assert joined.read(torch.arange(720).view(9, 80)).equal(whole.view(9, 80))
    assert joined.known(torch.arange(720)).all()
    first, last = joined.window(130)
    assert 120 <= first <= 130 < last <= 240
    assert joined.bytes_read > 0


def test_parts_that_differ_cannot_be_one(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2, 4), "b": torch.zeros(2, 5)}, tmp_path / "a.safetensors")
    joined = JoinedTensors("x", [(tmp_path / "a.safetensors", name) for name in "ab"], experts=1)
    with pytest.raises(SourceError, match=r"a\.safetensors:b is F32 2x5; a\.safetensors:a is F32 2x4"):
        joined.read(torch.arange(64))


def test_slots_behind_the_routed_experts_in_memory() -> None:
    plain, shared = _noise(4, 64, 256, seed=1), _noise(64, 256, seed=2)
    routed = apply_layout(plain[2:].contiguous(), "sep16")
    live = torch.cat([routed, apply_layout(shared.unsqueeze(0), "sep16"), torch.zeros_like(routed[:1])])
    found = identify(plain, live, role="w2_weight", shared=shared, num_experts=8)
    assert (found.verdict, found.layout, found.ep_rank, found.ep) == ("identified", "sep16", 1, 2)
    assert [(slot.number, slot.holds) for slot in found.slots] == [(2, "shared"), (3, "zeros")]
    unknown = identify(plain, live, role="w2_weight", num_experts=8)
    assert [slot.holds for slot in unknown.slots] == ["unknown", "zeros"]
    assert unknown.faults == ()
    other = identify(plain, live, role="w2_weight", shared=shared[:, :128].contiguous(), num_experts=8)
    assert other.slots[0].holds == "unknown"


def _noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_routed_experts_alone_leave_no_slot_to_guess() -> None:
    """Sixteen of sixteen experts are those of ep 1, not eight of ep 2 and eight slots."""
    live = of_tensor(torch.zeros(16, 4, 4, dtype=torch.uint8), "live")
    assert held_experts(16, live, None, None, False) is None
    fused = of_tensor(torch.zeros(17, 4, 4, dtype=torch.uint8), "live")
    held = held_experts(16, fused, None, None, False)
    assert held is not None
    assert (held.routed, held.slots, held.ep) == (16, 1, 1)


SLOTS = {
    "permuted": [5, 2, 7, 0, 3, 6, 1, 4],
    "replicated": [0, 1, 2, 3, 4, 5, 6, 7, 2, 5],
    "permuted and replicated": [5, 2, 2, 0, 3, 6, 1, 4, 7, 7],
}


@pytest.mark.parametrize("slots", SLOTS.values(), ids=SLOTS.keys())
def test_experts_in_a_load_balancers_slots_are_named_by_its_map(slots: list[int]) -> None:
    """Without the map the experts are others' than the checkpoint's: never said to be in order."""
    plain = torch.randint(0, 256, (8, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    live = apply_layout(plain[slots], "sep16")
    found = identify(plain[slots], live, role="w13_weight", gate_up_order="GGUU")
    assert (found.verdict, found.layout, found.faults) == ("identified", "sep16", ())
    if len(slots) == len(plain):
        assert identify(plain, live, role="w13_weight", gate_up_order="GGUU").verdict != "identified"
    else:
        with pytest.raises(SourceError, match="live holds 10 experts, plain 8"):
            identify(plain, live, role="w13_weight", gate_up_order="GGUU")
    half = live[: len(slots) // 2]
    found = identify(plain[slots], half, role="w13_weight", gate_up_order="GGUU", ep=2)
    assert (found.verdict, found.layout, found.faults) == ("identified", "sep16", ())

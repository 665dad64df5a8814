"""What a live layer shows: tensors, stamps, tags, and bytes beside the checkpoint's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from preshuffle.layouts import apply, begin_reload, identify, inverse, observe_layer, observed_call, write_checkpoint
from preshuffle.layouts.forensics import CheckpointLayer
from preshuffle.layouts.forensics.source import SourceError
from preshuffle.registry import Observation, Registry
from support.tensors.moe import ACTIVATIONS, decide, gpt_oss, in_padded_buffers, plain_tensors

REGISTRY = Registry.default()
DECISION = decide("fp4x2")
QUERY = gpt_oss("fp4x2")


def verdict_of(layer: Any, **options: Any) -> tuple[str, list[str]]:
    report = REGISTRY.check(Observation(query=QUERY, applied=observe_layer(layer, **options)))
    return report.verdict, [finding.code for finding in report.findings]


def module_of(tensors: dict[str, torch.Tensor], names: dict[str, str] | None = None) -> torch.nn.Module:
    """An engine's layer: parameters under its own names."""
    module = torch.nn.Module()
    for role, tensor in tensors.items():
        name = (names or {}).get(role, role)
        module.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))
    return module


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("padded", [False, True])
def test_a_layer_that_was_laid_out_shows_what_apply_says(activation: str, padded: bool) -> None:
    decision = decide(activation)
    tensors = plain_tensors(decision)
    tensors = in_padded_buffers(tensors, decision) if padded else tensors
    applied = apply(tensors, decision)
    seen = observe_layer(tensors)
    for role in decision.tensors:
        assert seen.tensors[role] == applied.tensors[role], role
    assert (seen.events, seen.source_order, seen.gate_mode) == (("apply",), "GUGU", None)


def test_an_engines_names_and_attributes_are_read() -> None:
    tensors = plain_tensors(DECISION)
    layer = module_of(tensors, {"w13_bias": "w13_weight_bias", "w2_bias": "w2_weight_bias"})
    apply(layer, DECISION)
    assert set(observe_layer(layer).tensors) == set(DECISION.tensors)


def test_a_layer_without_stamps_is_in_no_known_layout() -> None:
    tensors = plain_tensors(DECISION)
    tensors["w2_weight"].is_shuffled = True  # type: ignore[attr-defined]
    seen = observe_layer(tensors)
    assert {tensor.layout for tensor in seen.tensors.values()} == {None}
    assert (seen.events, seen.source_order) == ((), None)
    assert [seen.tensors[role].is_shuffled for role in ("w13_weight", "w2_weight")] == [False, True]
    assert seen.tensors["w13_weight"].physical_shape is None, "how many values a byte holds is not known"
    known = observe_layer(tensors, query=gpt_oss("fp4x2", weight_dtype="fp4x2")).tensors["w13_weight"]
    experts, rows, k = tensors["w13_weight"].shape
    assert known.physical_shape == (experts, rows, 2 * k)


def test_the_checkpoint_tells_the_layout_of_bytes_of_unknown_history() -> None:
    plain = plain_tensors(DECISION)
    layer = {role: tensor.clone() for role, tensor in plain.items()}
    apply(layer, DECISION)
    unstamped = {role: tensor.clone() for role, tensor in layer.items()}
    seen = observe_layer(unstamped, checkpoint=plain, query=QUERY)
    assert {role: tensor.layout for role, tensor in seen.tensors.items()} == {
        role: tensor.layout for role, tensor in DECISION.tensors.items()
    }
    assert seen.source_order == "GUGU"
    assert seen.tensors["w13_weight_scale"].pad_fill == 127
    codes = ["tag_lost", "tag_lost", "unsupported"]  # without a tag AITER takes CK-Tile, which raises for a bias
    assert verdict_of(unstamped, checkpoint=plain, query=QUERY) == ("mismatch", codes)


def test_an_open_checkpoint_tells_the_same_as_its_tensors(tmp_path: Path) -> None:
    """One type for what the loader reads, what `identify` compares with and what a layer is observed beside."""
    config = {
        **{"model_type": "gpt_oss", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2},
        **{"num_local_experts": 4, "num_experts_per_tok": 2, "swiglu_limit": 7.0},
        "quantization_config": {"quant_method": "mxfp4"},
    }
    checkpoint = write_checkpoint(tmp_path, config)
    query = REGISTRY.query_from_hf_config(config, arch="gfx950", activation_dtype="fp4x2", tp=2)
    decision = REGISTRY.resolve(query)
    layer = checkpoint.rank(1, query, tp_rank=1)
    apply(layer, decision)
    unstamped = {role: tensor.clone() for role, tensor in layer.items()}
    layouts = {role: tensor.layout for role, tensor in decision.tensors.items()}
    for given in (checkpoint, CheckpointLayer.of(checkpoint, 1)):
        seen = observe_layer(unstamped, checkpoint=given, number=1, query=query, tp_rank=1)
        assert {role: tensor.layout for role, tensor in seen.tensors.items()} == layouts
        assert {one.tp_rank for role, one in seen.identified.items() if not role.endswith("bias")} == {1}
    found = identify(checkpoint, unstamped["w2_weight"], role="w2_weight", layer=1)
    assert (found.layout, found.tp) == (layouts["w2_weight"], 2)
    other = observe_layer(unstamped, checkpoint=checkpoint, number=0, query=query)
    assert {one.verdict for one in other.identified.values()} == {"unknown"}, "bytes of another layer"
    with pytest.raises(SourceError, match=r"layer 7; valid: 0\.\.1"):
        observe_layer(unstamped, checkpoint=checkpoint, number=7)


def test_the_main_incident_is_seen() -> None:
    layer = plain_tensors(DECISION)
    apply(layer, DECISION)
    call = {**DECISION.call.kwargs(), "w1": layer["w13_weight"], "w2": layer["w2_weight"]}
    assert verdict_of(layer, call=call) == ("ok", [])
    verdict, codes = verdict_of(layer, call={**call, "gate_mode": "interleave"})
    assert (verdict, codes[0]) == ("mismatch", "layout_mismatch")
    left_out = {name: value for name, value in call.items() if name != "gate_mode"}
    assert observe_layer(layer, call=left_out).gate_mode is None


def test_of_a_tensor_that_was_passed_the_very_object_counts() -> None:
    layer = plain_tensors(DECISION)
    apply(layer, DECISION)
    for lost in (torch.nn.Parameter(layer["w13_weight"].data, requires_grad=False), layer["w13_weight"].clone()):
        seen = observe_layer(layer, call={"w1": lost}).tensors["w13_weight"]
        same_storage = lost.data_ptr() == layer["w13_weight"].data_ptr()
        assert (seen.is_shuffled, seen.layout) == (False, "sep16" if same_storage else None)
        assert observe_layer(layer, call=observed_call({"w1": lost})).tensors["w13_weight"] == seen


def test_a_strided_tensor_is_said_to_be_one() -> None:
    seen = observe_layer({"w2_weight": torch.zeros(2, 64, 64, dtype=torch.bfloat16).transpose(1, 2)})
    assert seen.tensors["w2_weight"].contiguous is False


def test_a_reload_under_way_is_an_event() -> None:
    layer = plain_tensors(DECISION)
    apply(layer, DECISION)
    begin_reload(layer)
    assert observe_layer(layer).events == ("apply", "begin_reload")


def test_one_expert_of_a_layer_is_not_the_layer() -> None:
    layer = plain_tensors(DECISION)
    apply(layer, DECISION)
    assert observe_layer({"w13_weight": layer["w13_weight"][:1]}).tensors["w13_weight"].layout is None


def test_an_inverse_leaves_no_claim() -> None:
    layer = plain_tensors(DECISION)
    apply(layer, DECISION)
    inverse(layer)
    assert observe_layer(layer).tensors["w13_weight"].layout is None

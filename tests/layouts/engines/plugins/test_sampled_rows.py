"""Rows that are sampled of a layer, and compared at their decided places."""

from __future__ import annotations

import pytest
import torch

from preshuffle.layouts import apply
from preshuffle.layouts.engines.plugins import sampled_rows
from preshuffle.layouts.engines.plugins.sampled_rows import compare_rows, take_rows
from preshuffle.registry.values.finding import FindingCode
from support.tensors.moe import ACTIVATIONS, decide, in_padded_buffers, plain_tensors

ALLOWED: tuple[FindingCode, ...] = ("scale_shape",)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample rows of small layers, too."""
    monkeypatch.setattr(sampled_rows, "SMALL", 0)


def verdicts(tensors: dict[str, torch.Tensor], samples: sampled_rows.RowSamples | None) -> dict[str, str]:
    assert samples is not None
    return {str(one.role): one.verdict for one in compare_rows(tensors, samples)}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("engine", ["atom", "sglang", "vllm"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_rows_of_a_right_layer_are_equal(activation: str, engine: str, last: bool, padded: bool) -> None:
    decision = decide(activation, engine=engine, tp=4)
    every = plain_tensors(decision, last_rank=last)
    plain = {role: tensor for role, tensor in every.items() if not role.endswith("_input_scale")}
    kept = {role: decided for role, decided in decision.tensors.items() if role in plain}
    given = in_padded_buffers(plain, decision.model_copy(update={"tensors": kept})) if padded else dict(plain)
    samples = take_rows(given, decision, last_rank=last)
    tensors = dict(plain)
    apply(tensors, decision, last_rank=last, allow=ALLOWED)
    found = verdicts(tensors, samples)
    assert {role for role, verdict in found.items() if verdict == "equal"} == set(plain)
    assert "differs" not in found.values()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_rows_show_another_layout(activation: str) -> None:
    decision, other = decide(activation), decide({"fp4x2": "bf16", "bf16": "fp4x2"}[activation])
    plain = plain_tensors(decision)
    samples = take_rows(plain, decision)
    tensors = dict(plain)
    apply(tensors, other)
    found = verdicts(tensors, samples)
    assert found["w13_weight"] == found["w13_weight_scale"] == "differs"


def test_rows_see_what_lies_at_their_places() -> None:
    decision = decide("fp4x2")
    plain = plain_tensors(decision)
    samples = take_rows(plain, decision)
    tensors = dict(plain)
    apply(tensors, decision)
    tensors["w2_weight"].view(torch.uint8)[0, 0, 0] ^= 1
    del tensors["w2_bias"]
    found = verdicts(tensors, samples)
    assert {role for role, verdict in found.items() if verdict == "differs"} == {"w2_weight"}
    assert found["w2_bias"] == "not compared"


def test_what_rows_cannot_show_is_left_to_whole_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    decision = decide("bf16")
    monkeypatch.setattr(sampled_rows, "SMALL", 1 << 20)
    assert take_rows(plain_tensors(decision), decision) is None  # small
    monkeypatch.setattr(sampled_rows, "SMALL", 0)
    stepped = decision.tensors["w2_weight"].model_copy(update={"steps": ("fnuz",)})
    changed = decision.model_copy(update={"tensors": {**decision.tensors, "w2_weight": stepped}})
    assert take_rows(plain_tensors(decision), changed) is None


def test_samples_take_a_small_part_of_a_tensor() -> None:
    decision = decide("bf16", hidden_size=512, intermediate_size=1024, num_experts=8)
    plain = plain_tensors(decision)
    samples = take_rows(plain, decision)
    assert samples is not None
    for role, pieces in samples.pieces.items():
        tensor, taken = plain[role], sum(piece.nbytes for piece in pieces)
        cast = 2 if tensor.dtype == torch.bfloat16 else 1
        row = tensor.nbytes // tensor.shape[0] // tensor.shape[1]
        assert taken <= cast * max(tensor.nbytes // sampled_rows.FRACTION, len(pieces) * row), role
        assert {piece.expert for piece in pieces} >= {0, 7}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_rows_on_a_gpu_are_judged_as_on_a_cpu(activation: str) -> None:
    decision = decide(activation)
    plain = {role: tensor.cuda() for role, tensor in plain_tensors(decision).items()}
    samples = take_rows(plain, decision)
    tensors = dict(plain)
    apply(tensors, decision)
    assert set(verdicts(tensors, samples).values()) == {"equal"}
    tensors["w2_weight"].view(torch.uint8).view(-1)[:64] ^= 255
    found = verdicts(tensors, samples)
    assert {role for role, verdict in found.items() if verdict == "differs"} == {"w2_weight"}
    del tensors["w13_bias"]
    assert verdicts(tensors, samples) == found | {"w13_bias": "not compared"}

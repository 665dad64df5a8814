"""``apply``: right bytes at the right address, or a clear refusal.

After a refusal nothing has changed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from preshuffle.layouts import (
    apply,
    begin_reload,
    describe,
    finish_reload,
    inverse,
    prove,
    stamp_of,
    write_expert,
)
from preshuffle.layouts.loader.result import AITER_TAG
from preshuffle.layouts.moves.in_place import InPlace
from preshuffle.registry import Decision, LayoutError
from support.tensors.moe import ACTIVATIONS, decide, in_padded_buffers, plain_tensors, roles

FP4X2 = torch.float4_e2m1fn_x2


def as_module(tensors: dict[str, torch.Tensor]) -> torch.nn.Module:
    module = torch.nn.Module()
    for name, tensor in tensors.items():
        parameter = torch.nn.Parameter(tensor, requires_grad=False)
        parameter.weight_loader = "loader"  # type: ignore[attr-defined]
        module.register_parameter(name, parameter)
    return module


def same_bytes(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.detach().contiguous().view(torch.uint8).equal(right.detach().contiguous().view(torch.uint8))


@pytest.mark.parametrize("last_rank", [False, True])
@pytest.mark.parametrize("tp", [1, 2, 4, 8])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_rank_is_laid_out_provably(activation: str, tp: int, last_rank: bool) -> None:
    decision = decide(activation, tp=tp)
    plain = plain_tensors(decision, last_rank=last_rank)
    laid = {role: tensor.clone() for role, tensor in plain.items()}
    apply(laid, decision)
    checks = prove(plain, laid, decision)
    assert [check for check in checks if not check.ok] == []
    assert {check.name for check in checks} == {"shapes", "tags", "bytes", "inverse", "forward"}
    assert laid["w13_weight"].dtype == FP4X2


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_padded_module_keeps_addresses_strides_and_attributes(activation: str) -> None:
    decision = decide(activation, tp=2)
    plain = plain_tensors(decision)
    module = as_module(in_padded_buffers(plain, decision))
    before = {name: (tensor.data_ptr(), tensor.stride()) for name, tensor in module.named_parameters()}
    apply(module, decision)
    apply(plain, decision)
    for name, tensor in module.named_parameters():
        assert same_bytes(tensor, plain[name])
        assert vars(tensor)["weight_loader"] == "loader"
        if not name.endswith("_bias"):  # bf16 to fp32 needs other storage
            address, strides = before[name]
            assert tensor.data_ptr() == address
            assert tensor.stride() == strides[-tensor.dim() :]  # MX scales are passed in two dimensions
    assert getattr(module.w13_weight, AITER_TAG)
    assert getattr(module.w2_weight, AITER_TAG)
    assert not hasattr(module.w13_weight_scale, AITER_TAG)
    assert dict(module.named_parameters()).keys() == before.keys()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("padded", [False, True])
def test_inverse_restores_every_byte_and_dtype(activation: str, padded: bool) -> None:
    decision = decide(activation, tp=8)
    plain = plain_tensors(decision)
    tensors = in_padded_buffers(plain, decision) if padded else dict(plain)
    before = {role: tensor.clone() for role, tensor in tensors.items()}
    apply(tensors, decision)
    inverse(tensors, decision)
    for role, tensor in before.items():
        assert tensors[role].dtype == tensor.dtype
        assert (
            tensors[role].equal(tensor) if not padded or role.endswith("_bias") else same_bytes(tensors[role], tensor)
        )
        assert stamp_of(tensors[role]) is None
        assert not hasattr(tensors[role], AITER_TAG)


def test_a_checkpoints_own_blocks_are_taken_and_given_back() -> None:
    decision = decide("fp4x2", tp=2)
    plain = plain_tensors(decision)
    blocks = {
        role: tensor.unflatten(2, (-1, 16)) if role.endswith("_weight") else tensor for role, tensor in plain.items()
    }
    tensors = dict(blocks)
    apply(tensors, decision)
    apply(flat := dict(plain), decision)
    assert all(same_bytes(tensors[role], flat[role]) for role in plain)
    inverse(tensors, decision)
    assert all(tensors[role].shape == blocks[role].shape and tensors[role].equal(blocks[role]) for role in plain)


def test_inverse_without_a_stamp_is_refused() -> None:
    decision = decide("bf16")
    with pytest.raises(LayoutError, match="w13_weight has no stamp"):
        inverse(plain_tensors(decision), decision)


def test_inverse_of_another_decision_is_refused() -> None:
    tensors = plain_tensors(decide("bf16"))
    apply(tensors, decide("bf16"))
    with pytest.raises(LayoutError, match=r"was laid out by another decision \(mxfp4.gui16"):
        inverse(tensors, decide("fp4x2"))


def test_applying_again_is_refused_or_skipped_never_done() -> None:
    decision = decide("fp4x2")
    tensors = plain_tensors(decision)
    first = apply(tensors, decision)
    held = {role: tensor.view(torch.uint8).clone() for role, tensor in tensors.items()}
    with pytest.raises(LayoutError, match=r"w13_weight is laid out already \(sep16, recipe mxfp4.sep16\)"):
        apply(tensors, decision)
    with pytest.raises(LayoutError, match="is laid out already"):
        apply(tensors, decide("bf16"), again="skip")
    assert apply(tensors, decision, again="skip") == first
    assert all(tensors[role].view(torch.uint8).equal(held[role]) for role in held)


def test_a_tag_without_a_stamp_is_somebody_elses_layout() -> None:
    decision = decide("fp4x2")
    tensors = plain_tensors(decision)
    tensors["w2_weight"].is_shuffled = True  # type: ignore[attr-defined]
    with pytest.raises(LayoutError, match="w2_weight has is_shuffled but no stamp"):
        apply(tensors, decision)


def test_engines_own_names_are_understood() -> None:
    decision = decide("fp4x2")
    tensors = plain_tensors(decision)
    tensors["w13_weight_bias"] = tensors.pop("w13_bias")
    tensors["w2_weight_bias"] = tensors.pop("w2_bias")
    apply(tensors, decision)
    assert tensors["w13_weight_bias"].dtype == torch.float32
    assert set(tensors) == {*(set(roles(decision)) - {"w13_bias", "w2_bias"}), "w13_weight_bias", "w2_weight_bias"}


def _drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["w2_weight_scale"]


def _add(tensors: dict[str, torch.Tensor]) -> None:
    tensors["w3_weight"] = torch.zeros(1)


def _shape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["w2_weight"] = tensors["w2_weight"][:, :-1].contiguous()


def _rank(tensors: dict[str, torch.Tensor]) -> None:
    tensors["w13_bias"] = tensors["w13_bias"].flatten()


def _dtype(tensors: dict[str, torch.Tensor]) -> None:
    tensors["w13_weight"] = tensors["w13_weight"].to(torch.int32)


def _strided(tensors: dict[str, torch.Tensor]) -> None:
    tensors["w2_weight"] = tensors["w2_weight"].transpose(1, 2).contiguous().transpose(1, 2)


def _meta(tensors: dict[str, torch.Tensor]) -> None:
    tensors["w13_weight_scale"] = tensors["w13_weight_scale"].to("meta")


def _not_a_tensor(tensors: dict[str, torch.Tensor]) -> None:
    tensors["w2_bias"] = [1.0]  # type: ignore[assignment]


def _twice(tensors: dict[str, torch.Tensor]) -> None:
    tensors["w13_weight_bias"] = tensors["w13_bias"]


BROKEN: dict[str, tuple[Callable[[dict[str, torch.Tensor]], None], str]] = {
    "missing": (_drop, r"missing: w2_weight_scale"),
    "extra": (_add, r"not part of the decision: w3_weight"),
    "shape": (
        _shape,
        r"w2_weight has shape \(4, 159, 240\); valid: \(4, 160, 240\) \(plain\), \(4, 256, 256\) \(padded\)",
    ),
    "dimensions": (_rank, r"w13_bias has shape \(3840,\)"),
    "dtype": (_dtype, r"w13_weight is int32; valid: float4_e2m1fn_x2, uint8"),
    "strided": (_strided, r"w2_weight of shape .* is not contiguous"),
    "device": (_meta, r"w13_weight_scale is on the meta device"),
    "no tensor": (_not_a_tensor, r"w2_bias is a list; a tensor is needed"),
    "alias twice": (_twice, r"w13_bias stands there twice"),
}


@pytest.mark.parametrize(("breaks", "message"), BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("padded", [False, True])
def test_refusals_touch_nothing(breaks: Callable[[dict[str, torch.Tensor]], None], message: str, padded: bool) -> None:
    decision = decide("fp4x2")
    tensors = plain_tensors(decision)
    if padded:  # everything else would go in place
        broken = dict(tensors)
        breaks(broken)
        tensors = {
            **in_padded_buffers(tensors, decision),
            **{k: v for k, v in broken.items() if v is not tensors.get(k)},
        }
        tensors = {name: tensor for name, tensor in tensors.items() if name in broken}
    else:
        breaks(tensors)
    before = {
        name: (tensor, tensor.clone())
        for name, tensor in tensors.items()
        if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta"
    }
    with pytest.raises(LayoutError, match=message):
        apply(tensors, decision)
    for name, (tensor, copy) in before.items():
        assert tensors[name] is tensor
        assert tensor.equal(copy)
        assert stamp_of(tensor) is None
        assert not hasattr(tensor, AITER_TAG)


@pytest.mark.parametrize(
    "mixed", [("w2_weight",), ("w13_weight", "w13_weight_scale", "w13_bias"), ("w2_weight_scale",)]
)
def test_tensors_of_different_ranks_are_refused(mixed: tuple[str, ...]) -> None:
    decision = decide("fp4x2", tp=8)
    tensors = plain_tensors(decision)
    short = plain_tensors(decision, last_rank=True)
    tensors.update({role: short[role] for role in mixed})
    with pytest.raises(LayoutError, match="the tensors are of different ranks: "):
        apply(tensors, decision)
    assert all(stamp_of(tensor) is None for tensor in tensors.values())


def test_again_has_two_values() -> None:
    with pytest.raises(LayoutError, match="again = 'bogus'; valid: refuse, skip"):
        apply(plain_tensors(decide("fp4x2")), decide("fp4x2"), again="bogus")  # type: ignore[arg-type]


def test_a_role_that_is_none_is_missing_and_nothing_else() -> None:
    tensors = plain_tensors(decide("fp4x2"))
    tensors["w13_bias"] = None  # type: ignore[assignment]
    with pytest.raises(LayoutError) as caught:
        apply(tensors, decide("fp4x2"))
    assert str(caught.value) == "the target's tensors do not fit; missing: w13_bias"


def test_a_target_of_another_kind_is_refused() -> None:
    with pytest.raises(LayoutError, match="a list is no target; valid: a module, or a dict of tensors"):
        apply([], decide("fp4x2"))  # type: ignore[arg-type]


def test_tensors_that_share_bytes_are_refused() -> None:
    decision = decide("fp4x2", hidden_size=480, intermediate_size=480)
    tensors = plain_tensors(decision)
    tensors["w2_weight"] = tensors["w13_weight"][:, :480].contiguous()
    tensors["w2_weight_scale"] = (
        tensors["w13_weight_scale"]
        .flatten()[: tensors["w2_weight_scale"].numel()]
        .view(tensors["w2_weight_scale"].shape)
    )
    with pytest.raises(LayoutError, match="w13_weight_scale and w2_weight_scale share bytes"):
        apply(tensors, decision)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_was_applied_is_described(activation: str) -> None:
    decision: Decision = decide(activation)
    tensors = plain_tensors(decision)
    applied = apply(tensors, decision)
    assert applied == describe(tensors, decision)
    assert applied.decided_call == decision.call
    assert {applied.gate_mode, applied.hidden_pad, applied.bias_passed} == {None}, "nobody has called a kernel yet"
    w13 = applied.tensors["w13_weight"]
    assert (w13.layout, w13.is_shuffled, w13.pad_fill) == (decision.tensors["w13_weight"].layout, True, "zero")
    assert applied.tensors["w13_weight_scale"].pad_fill == 127


def test_tensors_made_in_inference_mode_are_laid_out_in_place_outside_of_it() -> None:
    decision = decide("bf16")
    with torch.inference_mode():
        tensors = in_padded_buffers(plain := plain_tensors(decision), decision)
    apply(wanted := dict(plain), decision)
    apply(tensors, decision)
    write_expert(tensors, 0, "w2_weight", plain["w2_weight"][0])
    assert all(same_bytes(tensors[role], wanted[role]) for role in wanted)
    inverse(tensors)
    assert stamp_of(tensors["w2_weight"]) is None


@pytest.mark.parametrize("padded", [True, False])
def test_a_backend_that_is_not_there_breaks_nothing(padded: bool) -> None:
    decision = decide("fp4x2")
    plain = plain_tensors(decision)
    tensors = in_padded_buffers(plain, decision) if padded else plain
    before = {role: tensor.clone() for role, tensor in tensors.items()}
    with pytest.raises(LayoutError, match="AITER cannot be imported here; use backend native"):
        apply(tensors, decision, backend="aiter")
    assert all(stamp_of(tensor) is None and tensor.equal(before[role]) for role, tensor in tensors.items())


def test_a_failure_breaks_the_tensor_that_it_met_and_none_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    decision = decide("fp4x2")
    apply(tensors := in_padded_buffers(plain_tensors(decision), decision), decision)
    begin_reload(tensors)
    with monkeypatch.context() as patched:
        patched.setattr(InPlace, "lay_out", _fails_at(InPlace.lay_out, call=2))
        with pytest.raises(MemoryError):
            finish_reload(tensors, decision)
    states = [stamp.state for tensor in tensors.values() if (stamp := stamp_of(tensor))]
    in_place = [state for state in states if state != "applied"]
    assert in_place[:2] == ["broken", "broken"]
    assert set(in_place[2:]) == {"reloading"}


def _fails_at(real: Callable[..., None], call: int) -> Callable[..., None]:
    calls = iter(range(1, 100))

    def run(*arguments: object) -> None:
        if next(calls) == call:
            raise MemoryError
        real(*arguments)

    return run

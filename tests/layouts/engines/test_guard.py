"""Calls that are checked before they run, once for each layer and bucket of tokens."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from preshuffle.layouts import (
    WrongCallError,
    WrongCallWarning,
    apply,
    begin_reload,
    call_arguments,
    guard_calls,
    prepare,
)
from preshuffle.layouts.engines.guard import bucket_of
from support.tensors.moe import ACTIVATIONS, SMALL, decide, plain_tensors

OTHER = {"separated": "interleave", "interleave": "separated"}
GPU = {"arch": "gfx950", "cu_num": 256, "aiter": "0.1.20"}


def fused_moe(
    hidden_states: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    topk_weight: torch.Tensor,
    topk_ids: torch.Tensor,
    expert_mask: torch.Tensor | None = None,
    **others: Any,
) -> torch.Tensor:
    """Stand for AITER's kernel."""
    return hidden_states + 1


def arguments(tokens: int = 16) -> dict[str, Any]:
    return {
        "hidden_states": torch.zeros(tokens, 256, dtype=torch.bfloat16),
        "topk_weight": torch.zeros(tokens, 2),
        "topk_ids": torch.zeros(tokens, 2, dtype=torch.int32),
    }


def layer(activation: str = "fp4x2") -> tuple[dict[str, torch.Tensor], dict[str, Any], dict[str, str]]:
    """A laid-out layer, what must be passed for it, and the environment that goes with it."""
    decision = decide(activation)
    tensors = plain_tensors(decision)
    apply(tensors, decision)
    return tensors, call_arguments(tensors, decision), dict(decision.env)


def guarded(on: Any = "raise", **fields: Any) -> Any:
    return guard_calls(fused_moe, on=on, **{**GPU, **fields})


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_right_call_passes_and_a_wrong_gate_mode_does_not(activation: str) -> None:
    _, passed, env = layer(activation)
    call = guarded(env=env)
    assert torch.equal(call(**arguments(), **passed), arguments()["hidden_states"] + 1)
    with pytest.raises(WrongCallError, match="layout_mismatch w13_weight"):
        call(**arguments(), **{**passed, "gate_mode": OTHER[passed["gate_mode"]]})
    assert (call.guard.checked, call.guard.unchecked) == (2, {})


def test_a_gate_mode_that_is_left_out_is_aiters_default() -> None:
    _, passed, env = layer("bf16")
    without = {name: value for name, value in passed.items() if name != "gate_mode"}
    with pytest.raises(WrongCallError, match="gate_mode=separated"):
        guarded(env=env)(**arguments(), **without)


def test_each_layer_is_checked_once_for_each_bucket() -> None:
    _, passed, _ = layer()
    call = guarded()
    for tokens in (16, 16, 17, 20, 31, 32, 300, 301, 16):
        call(**arguments(tokens), **passed)
    assert call.guard.checked == len({bucket_of(tokens) for tokens in (16, 17, 32, 300)}) == 4
    call.guard.forget()
    call(**arguments(16), **passed)
    assert call.guard.checked == 5


def test_positional_arguments_and_new_views_are_the_same_layer() -> None:
    _, passed, _ = layer()
    call = guarded()
    given = arguments()
    rest = {name: value for name, value in passed.items() if name not in ("w1", "w2")}
    for _ in range(3):
        view = passed["w1"].detach()
        view.is_shuffled = True
        call(given["hidden_states"], view, passed["w2"], given["topk_weight"], given["topk_ids"], **rest)
    assert call.guard.checked == 1
    with pytest.raises(WrongCallError, match="tag_lost w13_weight"):
        call(**given, **{**passed, "w1": passed["w1"].detach()})


def test_what_is_found_is_warned_of_or_counted_once() -> None:
    _, passed, _ = layer()
    wrong = {**passed, "gate_mode": "interleave"}
    call = guarded("warn")
    with pytest.warns(WrongCallWarning, match="layout_mismatch"):
        call(**arguments(), **wrong)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(**arguments(), **wrong)
    counting = guarded("count")
    for _ in range(2):
        counting(**arguments(), **wrong)
    assert counting.guard.found["layout_mismatch"] == call.guard.found["layout_mismatch"] > 0
    assert counting.guard.checked == 1


def test_a_wrong_call_is_refused_every_time() -> None:
    _, passed, _ = layer()
    call = guarded()
    for _ in range(2):
        with pytest.raises(WrongCallError):
            call(**arguments(), **{**passed, "gate_mode": "interleave"})


def test_a_layer_that_is_being_reloaded_does_not_run() -> None:
    tensors, passed, _ = layer()
    begin_reload(tensors)
    with pytest.raises(WrongCallError, match=r"raw_write.*call finish_reload before the layer runs"):
        guarded()(**arguments(), **passed)


def test_bytes_that_nobody_stamped_pass() -> None:
    _, passed, _ = layer()
    unknown = {**passed, "w1": passed["w1"].clone(), "w2": passed["w2"].clone(), "gate_mode": "interleave"}
    call = guarded()
    call(**arguments(), **unknown)
    assert call.guard.found == {}


def test_a_call_that_cannot_be_judged_passes_and_is_counted() -> None:
    _, passed, _ = layer()
    call = guarded(arch="no GPU")
    call(**arguments(), **passed)
    (reason,) = call.guard.unchecked
    assert reason.startswith("QueryError: arch")


def test_nothing_is_checked_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    _, passed, _ = layer()
    call = guarded()
    capturing = [True]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing[0])
    call(**arguments(), **{**passed, "gate_mode": "interleave"})
    assert call.guard.checked == 0
    capturing[0] = False
    with pytest.raises(WrongCallError):
        call(**arguments(), **{**passed, "gate_mode": "interleave"})


def test_nothing_is_checked_while_torch_says_that_it_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    _, passed, _ = layer()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    call = guarded()
    call(**arguments(), **{**passed, "gate_mode": "interleave"})
    assert call.guard.checked == 0


@pytest.mark.slow
def test_torch_compiles_through_a_guard() -> None:
    _, passed, _ = layer()
    call = guarded()
    wrong = {**passed, "gate_mode": "interleave"}
    compiled = torch.compile(lambda given: call(**given, **wrong), backend="eager", fullgraph=True)
    assert torch.equal(compiled(arguments()), arguments()["hidden_states"] + 1)
    assert call.guard.checked == 0


def test_name_and_parameters_stay_visible() -> None:
    assert guarded().__name__ == "fused_moe"
    assert inspect.signature(guarded()) == inspect.signature(fused_moe)


def test_a_prepared_layer_brings_its_own_query() -> None:
    decision = decide("bf16")
    sizes = {name: SMALL[name] for name in ("hidden_size", "intermediate_size", "top_k")}
    fields: dict[str, Any] = {**GPU, **sizes, "environment": dict(decision.env)}
    ready = prepare(plain_tensors(decision), model="gpt-oss-20b", **fields)
    call = guard_calls(fused_moe, arch="gfx942")
    call.guard.add(ready)
    call(**arguments(), **ready.kwargs())
    assert (call.guard.checked, call.guard.found, call.guard.unchecked) == (1, {}, {})


@pytest.mark.parametrize("wrap", ["named", "collected"])
def test_a_guard_passes_every_argument_on(wrap: str) -> None:
    """Parameters that are named, keyword-only or rests; and such as the guard has to collect."""

    def named(hidden_states: Any, w1: Any, w2: Any = 3, *, activation: Any = "Silu", **others: Any) -> Any:
        return hidden_states, w1, w2, activation, others

    def collected(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    function = named if wrap == "named" else collected
    call, w1, x = guard_calls(function, arch="gfx950"), torch.zeros(1), torch.zeros(2, 4)
    for args, kwargs in (
        ((x, w1), {}),
        ((x,), {"w1": w1, "gate_mode": "separated"}),
        ((), {"w1": w1, "hidden_states": x, "w2": 4, "activation": None, "extra": 1}),
    ):
        assert call(*args, **kwargs) == function(*args, **kwargs)
    assert inspect.signature(call) == inspect.signature(function)


def test_a_wrong_number_of_arguments_is_the_functions_error() -> None:
    with pytest.raises(TypeError, match="fused_moe"):
        guarded()(torch.zeros(2, 4))


def test_a_call_that_cannot_be_read_passes() -> None:
    call = guarded()
    with FakeTensorMode():
        without_memory = torch.empty(2, 4)
    for w1 in (without_memory, None):
        assert call(w1=w1, w2=w1, **arguments()).sum() > 0
    assert (call.guard.checked, call.guard.unchecked.total()) == (0, 2)

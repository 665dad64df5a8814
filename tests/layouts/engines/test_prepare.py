"""The whole integration in one call: decide, compare the environment, lay out, tag, stamp, report."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from preshuffle.layouts import apply, prepare, shipped_books, stamp_of
from preshuffle.layouts.engines import registry_here
from preshuffle.registry import BookError, LayoutError, Query, Registry
from support.tensors.live_layers import loader
from support.tensors.live_ranks import decided, live
from support.tensors.moe import SMALL, decide, plain_tensors

GIVEN: dict[str, Any] = {"model": "gpt-oss-20b", "arch": "gfx950", "aiter": "0.1.20", "environment": {}}
SWITCHES = {"vllm": {"VLLM_ROCM_USE_AITER": "1"}, "sglang": {"SGLANG_USE_AITER": "1"}, "atom": {}}


@pytest.mark.parametrize("engine", ["vllm", "sglang", "atom"])
def test_a_live_layer_is_laid_out_as_decided(engine: str) -> None:
    layer, plain, _ = live(engine)
    before = {name: parameter.data_ptr() for name, parameter in layer.named_parameters() if "bias" not in name}
    ready = prepare(layer, engine=engine, **{**GIVEN, "environment": SWITCHES[engine]}, on_environment="tell")
    wanted = dict(plain)
    apply(wanted, ready.decision)
    assert ready.decision.decision_digest == Registry.default().resolve(ready.query).decision_digest
    assert (ready.query.tp, ready.query.num_experts, ready.query.hidden_size) == (2, SMALL["num_experts"], 160)
    for name, parameter in layer.named_parameters():
        role = name.replace("_weight_bias", "_bias")
        assert isinstance(parameter, torch.nn.Parameter)
        assert getattr(parameter, "weight_loader", None) is loader
        assert torch.equal(parameter.data.view(torch.uint8), wanted[role].view(torch.uint8)), name
        stamp = stamp_of(parameter)
        assert stamp is not None
        assert stamp.state == "applied"
    assert {name: layer.get_parameter(name).data_ptr() for name in before} == before
    assert layer.w13_weight.is_shuffled is True
    assert ready.report.verdict in ("ok", "unknown", "degraded"), ready.report.findings


def test_the_call_that_was_prepared_is_the_one_that_is_right() -> None:
    layer, _, _ = live("vllm")
    ready = prepare(layer, engine="vllm@0.33.0", **GIVEN, on_environment="tell")
    passed = ready.kwargs("aiter.fused_moe")
    assert (passed["gate_mode"], passed["bias1"] is not None, passed["w1"].is_shuffled) == ("interleave", True, True)
    assert ready.kwargs()["quant_method"] == 3, "the engine's own wrapper is the default"
    assert ready.check(passed).verdict in ("ok", "degraded")
    assert ready.check({**passed, "gate_mode": "separated"}).verdict == "mismatch"
    assert ready.check(ready.kwargs(), "vllm.fused_moe").verdict in ("ok", "degraded")


def test_the_kernel_gets_its_dtype_shape_and_tag() -> None:
    layer, _, decision = live("atom")
    ready = prepare(layer, engine="atom", **GIVEN, on_environment="tell")
    layer.w13_weight = torch.nn.Parameter(layer.w13_weight.data.view(torch.uint8), requires_grad=False)
    passed = ready.kwargs("aiter.fused_moe")
    assert str(passed["w1"].dtype) == "torch.float4_e2m1fn_x2"
    assert passed["w1"].is_shuffled is True
    assert passed["w1"].data_ptr() == layer.w13_weight.data_ptr()
    assert tuple(passed["w1_scale"].shape) == decision.tensors["w13_weight_scale"].passed_shape


def test_aiters_own_enumerators_are_passed_where_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, _, _ = live("atom")
    ready = prepare(layer, engine="atom", **GIVEN, on_environment="tell")
    aiter = ModuleType("aiter")
    aiter.QuantType = SimpleNamespace(per_1x32="its own")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "aiter", aiter)
    assert ready.kwargs("aiter.fused_moe")["quant_type"] == "its own"
    assert ready.kwargs("aiter.fused_moe")["activation"].value == 2


def test_an_engines_own_words_are_passed_where_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, _, _ = live("sglang")
    ready = prepare(layer, engine="sglang", **GIVEN, on_environment="tell")
    assert ready.kwargs()["quant_type"] == "per_1x32"
    runner = ModuleType("sglang.srt.layers.moe.moe_runner.aiter")
    AiterQuantType = StrEnum("AiterQuantType", {"PER_1X32": "per_1x32"})
    runner.AiterQuantType = AiterQuantType  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, runner.__name__, runner)
    assert ready.kwargs()["quant_type"] is AiterQuantType["PER_1X32"]


class TestEnvironment:
    """Switches that a decision needs, and those that this process has."""

    NEEDED = "AITER_BF16_FP8_MOE_BOUND"

    def prepare(self, environment: dict[str, str], how: Any = "refuse") -> Any:
        decision = decide("bf16")
        layer = plain_tensors(decision)
        assert decision.env == {self.NEEDED: "2147483647"}
        query = {name: SMALL[name] for name in ("hidden_size", "intermediate_size", "top_k")}
        return layer, lambda: prepare(
            layer, **{**GIVEN, **query, "activation_dtype": "bf16", "environment": environment}, on_environment=how
        )

    def test_a_difference_is_refused_before_a_byte_moves(self) -> None:
        layer, run = self.prepare({})
        with pytest.raises(LayoutError, match=f"{self.NEEDED} must be 2147483647, found 256"):
            run()
        assert all(stamp_of(tensor) is None for tensor in layer.values())

    def test_what_is_set_as_needed_is_no_difference(self) -> None:
        _, run = self.prepare({self.NEEDED: "2147483647"})
        assert run().differences == ()

    def test_a_difference_may_be_told(self) -> None:
        _, run = self.prepare({self.NEEDED: "0"}, "tell")
        (one,) = run().differences
        assert (one.name, one.needed, one.found, one.in_time) == (self.NEEDED, "2147483647", "0", True)

    def test_what_is_read_at_every_call_may_be_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(self.NEEDED, "256")
        _, run = self.prepare({}, "set")
        run()
        assert os.environ[self.NEEDED] == "2147483647"

    def test_what_was_read_already_cannot_be_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        layer, _, _ = live("sglang")
        monkeypatch.setitem(sys.modules, "sglang", ModuleType("sglang"))
        with pytest.raises(LayoutError, match=r"SGLANG_USE_AITER must be 1.*set it before the process starts"):
            prepare(
                layer,
                engine="sglang",
                **GIVEN,
                env={"SGLANG_USE_AITER": "1"},
                decision=needing_sglang(),
                on_environment="set",
            )


def needing_sglang() -> Any:
    decision = decided("sglang", env={"SGLANG_USE_AITER": "1"})
    return decision.model_copy(update={"env": {"SGLANG_USE_AITER": "1"}})


BOOK = """rules:
  acme.gpt-oss:
    when: {model: openai/gpt-oss-20b, arch: gfx950, activation_dtype: bf16, engine: null, deployment: "acme-*"}
    use: mxfp4.sep16
    because: Acme says so
    evidence: [https://acme.example]
"""


def point(value: str) -> Any:
    return metadata.EntryPoint(name="acme", value=value, group="preshuffle.books")


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An installed package that ships a book, and would fail if it were imported."""
    folder = tmp_path / "acme_engine" / "book"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "acme.yaml").write_text(BOOK)
    monkeypatch.syspath_prepend(tmp_path)
    points: list[Any] = []
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == "preshuffle.books" else [])
    return points, folder


def test_an_engine_ships_its_own_book(shipped: Any) -> None:
    points, folder = shipped
    points.append(point("acme_engine.book"))
    assert shipped_books() == (folder,)
    query = Query.parse({"model": "gpt-oss-20b", "arch": "gfx950", "activation_dtype": "bf16", "deployment": "acme-1"})
    assert registry_here().resolve(query, kernels=False).rule == "acme.gpt-oss"
    assert Registry.default().resolve(query, kernels=False).rule != "acme.gpt-oss"


def test_an_entry_point_without_a_folder_is_named(shipped: Any) -> None:
    points, _ = shipped
    points.append(point("acme_engine.nothing"))
    with pytest.raises(BookError, match=r"acme_engine.nothing names no folder of an installed package"):
        shipped_books()

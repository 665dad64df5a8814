# ruff: noqa: E501  (tables: one case, one line)
"""Kernels that nobody reported: what the engine runs by its rules, under the switches that were reported."""

from typing import Any

import pytest

from preshuffle.registry import Report
from support.book.observations import report

Raw = dict[str, Any]

QWEN, OSS = "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "openai/gpt-oss-120b"
AITER: Raw = {"VLLM_ROCM_USE_AITER": "1"}


def reported(layout: str, **query: Any) -> Report:
    tensors = {role: {"layout": layout} for role in ("w13_weight", "w2_weight")}
    fields = {"model": QWEN, "arch": "gfx942", "tp": 4, **query}
    return report({"query": fields, "applied": {"tensors": tensors}})


@pytest.mark.parametrize(
    ("layout", "query", "verdict", "codes", "note"),
    [
        ("plain", {"engine": "atom"}, "mismatch", {"layout_mismatch"}, "atom runs AITER's kernels (rule atom.fp8-block), which read both weights as sep16"),
        ("sep16", {"engine": "atom"}, "ok", set(), None),
        ("plain", {}, "unknown", set(), None),
        ("plain", {"engine": "vllm@0.33.0", "env": AITER}, "mismatch", {"layout_mismatch"}, "vllm runs AITER's kernels"),
        ("sep16", {"engine": "vllm@0.33.0", "env": AITER}, "ok", set(), None),
        ("plain", {"engine": "vllm@0.33.0"}, "unknown", set(), "may run AITER's kernels (rule vllm.fp8.block), which read both weights as sep16, if VLLM_ROCM_USE_AITER=1; or, without that, another backend"),
        ("plain", {"engine": "vllm@0.33.0", "env": {"VLLM_ROCM_USE_AITER": "0"}}, "unknown", set(), None),
        ("plain", {"engine": "vllm@0.33.0", "env": AITER | {"VLLM_ROCM_USE_AITER_MOE": "0"}}, "unknown", set(), None),
        ("plain", {"engine": "sglang@0.5.23", "env": {"SGLANG_USE_AITER": "1"}}, "mismatch", {"layout_mismatch"}, "sglang runs AITER's kernels"),
        ("plain", {"engine": "sglang@0.5.23"}, "unknown", set(), "if SGLANG_USE_AITER=1"),
        ("plain", {"engine": "acme"}, "unknown", set(), None),
        # a model that no entry knows, of unknown size
        ("plain", {"engine": "atom", "model": "acme/new", "weight_dtype": "fp8", "quant_type": "per_1x128"}, "mismatch", {"layout_mismatch"}, "rule atom.fp8-block"),
        ("plain", {"engine": "atom", "model": "acme/new", "weight_dtype": "fp8"}, "unknown", set(), "depending on quant_type"),
        # an option names the backend
        ("plain", {"engine": "sglang@0.5.23", "env": {"SGLANG_USE_AITER": "1", "--moe-runner-backend": "triton"}}, "ok", set(), "sglang runs Triton's kernels (rule sglang.fp8.block.triton)"),
        ("plain", {"engine": "vllm@0.33.0", "env": {"--moe-backend": "triton"}}, "ok", set(), "vllm is set to run triton"),
        ("plain", {"engine": "vllm@0.33.0", "env": {"--moe-runner-backend": "triton"}}, "degraded", {"flag_unknown"}, "may run AITER's kernels"),
        ("plain", {"engine": "vllm@0.33.0", "env": AITER | {"--moe-backend": "aiter"}}, "mismatch", {"layout_mismatch"}, "vllm runs AITER's kernels"),
        # Triton's kernels read plain bytes
        ("plain", {"engine": "atom", "model": OSS, "arch": "gfx950", "tp": 1, "env": {"ATOM_USE_TRITON_MOE": "1"}}, "ok", set(), "atom runs Triton's kernels"),
        ("plain", {"engine": "atom", "model": OSS, "arch": "gfx950", "tp": 1, "env": {"ATOM_USE_TRITON_MOE": "0"}}, "unsupported", {"unsupported"}, "atom runs AITER's kernels"),
    ],
)  # fmt: skip
def test_backend_that_is_not_reported(layout: str, query: Raw, verdict: str, codes: set[str], note: str | None) -> None:
    found = reported(layout, **query)
    assert (found.verdict, {finding.code for finding in found.findings}) == (verdict, codes), found
    notes = [text for text in found.notes if "no kernel was reported" in text]
    assert note in notes[0] if note else not notes, notes


@pytest.mark.parametrize(
    ("function", "verdict"),
    [("fused_moe", "mismatch"), ("asm_moe_tkw1", "mismatch"), ("moe_gemm_a8w4", "ok"), ("acme_moe", "unknown")],
)
def test_the_function_that_was_called_tells_whose_kernels_run(function: str, verdict: str) -> None:
    tensors = {role: {"layout": "plain"} for role in ("w13_weight", "w2_weight")}
    query = {"model": "acme/new", "arch": "gfx942", "weight_dtype": "fp8", "quant_type": "per_Token"}
    sizes = {"activation": "Silu", "hidden_size": 4096, "intermediate_size": 2048, "num_experts": 64, "top_k": 4}
    found = report({"query": query | sizes, "applied": {"tensors": tensors, "function": function}})
    assert found.verdict == verdict, found


@pytest.mark.parametrize(("layout", "backend"), [("gui16", "MegaMoE"), ("sep16", "")])
def test_laid_out_bytes_are_anothers_where_the_engine_runs_it(layout: str, backend: str) -> None:
    query = {"model": "amd/Qwen3.5-397B-A17B-MXFP4", "arch": "gfx950", "tp": 4, "engine": "atom"}
    tensors = {"w13_weight": {"layout": layout, "is_shuffled": False}, "w2_weight": {"layout": "sep16"}}
    found = report({"query": query | {"env": {"--moe-backend": "mega"}}, "applied": {"tensors": tensors}})
    assert ("tag_lost" in {finding.code for finding in found.findings}) == (not backend), found
    assert any(backend in text for text in found.notes if "no kernel was reported" in text) == bool(backend)


def test_what_was_observed_counts_first() -> None:
    tensors = {role: {"layout": "plain"} for role in ("w13_weight", "w2_weight")}
    query = {"model": QWEN, "arch": "gfx942", "tp": 4, "engine": "atom"}
    found = report({"query": query, "applied": {"tensors": tensors, "kernels": [{"backend": "triton"}]}})
    assert (found.verdict, found.findings) == ("ok", ())
    assert not any("no kernel was reported" in text for text in found.notes)


@pytest.mark.parametrize(("engine", "found"), [("vllm@0.33.0", set()), ("sglang@0.5.23", {"unsupported"})])
def test_switches_that_an_engine_sets_itself_need_no_report(engine: str, found: set[str]) -> None:
    env = {"vllm@0.33.0": AITER, "sglang@0.5.23": {"SGLANG_USE_AITER": "1"}}[engine]
    query = {"model": "deepseek-ai/DeepSeek-V4-Pro", "arch": "gfx950", "tp": 4, "engine": engine, "env": env}
    tensors = {
        role: {"layout": layout, "is_shuffled": True}
        for role, layout in (("w13_weight", "gui16"), ("w2_weight", "sep16"))
    }
    applied = {"gate_mode": "interleave", "tensors": tensors}
    codes = {finding.code for finding in report({"query": query | {"aiter": "0.1.20"}, "applied": applied}).findings}
    assert codes & {"unsupported"} == found, codes

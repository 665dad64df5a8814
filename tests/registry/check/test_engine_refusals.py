"""Bytes laid out for AITER where an engine runs Triton's kernels, or raises, are found."""

from __future__ import annotations

from typing import Any

import pytest

from preshuffle.registry import Observation, Report
from support.book.strategies import REGISTRY

SIZES = {"hidden_size": 4096, "intermediate_size": 1408, "num_experts": 64, "top_k": 8, "gate_up_order": "GGUU"}
TENSOR = {"weight_dtype": "fp8", "quant_type": "per_Tensor", "activation": "Silu"}
BF16 = {"weight_dtype": "bf16", "quant_type": "No", "activation": "Silu"}
SGLANG = {"engine": {"name": "sglang", "version": "0.5.23"}, "env": {"SGLANG_USE_AITER": "1"}}
VLLM = {"engine": {"name": "vllm", "version": "0.33.0"}, "env": {"VLLM_ROCM_USE_AITER": "1"}}
CT = "compressed-tensors"
DYNAMIC = {**TENSOR, "producer": CT, "activation_scales": "dynamic"}


def checked(engine: dict[str, Any], layout: str, kernels: Any = (), **query: Any) -> Report:
    weights = {role: {"layout": layout, "is_shuffled": layout != "plain"} for role in ("w13_weight", "w2_weight")}
    applied = {"tensors": weights, "kernels": list(kernels)}
    stated = {"model": "acme/moe", "arch": "gfx950", "tp": 1, "ep": 1, **SIZES, **engine, **query}
    return REGISTRY.check(Observation.parse({"query": stated, "applied": applied}))


@pytest.mark.parametrize(
    ("engine", "broken", "mended", "code"),
    [
        (SGLANG, {**TENSOR, "producer": "quark"}, {"quant_type": "per_Token"}, "layout_mismatch"),
        (SGLANG, {**TENSOR, "producer": CT}, {"quant_type": "per_Token"}, "layout_mismatch"),
        (SGLANG, {**BF16, "tp": 8}, {"tp": 1}, "layout_mismatch"),
        (SGLANG, {**BF16, "activation": "Swiglu"}, {"activation": "Silu"}, "layout_mismatch"),
        (VLLM, DYNAMIC, {"activation_scales": "static"}, "unsupported"),
    ],
)  # fmt: skip
def test_what_the_engine_does_not_give_to_aiter(
    engine: dict[str, Any], broken: dict[str, Any], mended: dict[str, Any], code: str
) -> None:
    assert code in {finding.code for finding in checked(engine, "sep16", **broken).findings}
    assert checked(engine, "plain", **broken).verdict in ("ok", "unknown")
    right = checked(engine, "sep16", **{**broken, **mended})
    assert not [finding for finding in right.findings if finding.severity == "error"], right


def test_what_was_seen_to_run_counts_before_what_the_engine_does() -> None:
    kernels = [{"stage1": "ck_moe_stage1", "stage2": "ck_moe_stage2"}]
    report = checked(SGLANG, "sep16", kernels, **BF16, tp=8)
    assert "SGLang" not in " ".join(finding.message for finding in report.findings)

# ruff: noqa: E501  (tables: one case, one line)
"""Each finding code, in a deployment where it must be found and in its neighbour where it must not."""

from typing import Any

import pytest

from preshuffle.registry import Observation, Query, Registry, observation_of
from support.book.observations import (
    RIGHT,
    SEP,
    bent,
    codes,
    registry,
    report,
)

Raw = dict[str, Any]


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_silent(name: str) -> None:
    found = report(RIGHT[name])
    assert (found.verdict, found.findings) == ("ok", ()), found


WRONG: dict[str, tuple[str, Raw, set[str]]] = {
    # layouts
    "interleaved bytes, separated call": ("a4w4", {"w13_weight": {"layout": "gui16"}}, {"layout_mismatch"}),
    "plain bytes where CK always reads tiles": ("bf16", {"w13_weight": {"layout": "plain", "is_shuffled": False}}, {"layout_mismatch"}),
    "row interleave on gfx950": ("a8w4", {"w13_weight": {"layout": "gurow16"}}, {"layout_mismatch"}),
    "tile interleave on gfx1250": ("gfx1250", {"w13_weight": {"layout": "gui16"}}, {"layout_mismatch"}),
    "mxfp8 kernels read gui16 only": ("mxfp8", {"w13_weight": {"layout": "sep16"}, "w13_weight_scale": {"layout": "e8"}}, {"layout_mismatch"}),
    "scales of another row order": ("a8w4", {"w13_weight_scale": {"layout": "e8"}}, {"layout_mismatch"}),
    "raw scales": ("a4w4", {"w2_weight_scale": {"layout": "plain"}}, {"layout_mismatch"}),
    "SiTU a16w4 reads gate and up apart": ("situ", {"w13_weight": {"layout": "gui16"}, "w13_weight_scale": {"layout": "e8_gui16"}}, {"layout_mismatch"}),
    "Triton on tiles": ("triton", {"w13_weight": {"layout": "sep16", "is_shuffled": True}}, {"layout_mismatch"}),
    "two backends by token count": ("block", {"applied": {"kernels": [{"tokens": 8, "backend": "triton"}, {"tokens": 512, "backend": "aiter"}]}}, {"layout_mismatch"}),
    "LoRA over laid-out weights": ("a4w4", {"applied": {"lora": True}}, {"layout_mismatch"}),
    "a fallback that reads plain bytes": ("bf16", {"applied": {"fallback_backend": "triton"}}, {"fallback_layout"}),
    "gfx1250 bias gate first": ("gfx1250", {"query": {"bias": True}, "applied": {"bias_passed": True}, "w13_bias": {"layout": "plain"}}, {"layout_mismatch"}),
    # tags
    "tag lost": ("a4w4", {"w13_weight": {"is_shuffled": False}, "w2_weight": {"is_shuffled": False}}, {"tag_lost"}),
    "one tag lost": ("a8w4", {"w2_weight": {"is_shuffled": False}}, {"tag_lost"}),
    "tag lost on fp8": ("token", {"w13_weight": {"is_shuffled": False}}, {"tag_lost"}),
    "tag on plain bytes": ("a4w4", {"w13_weight": {"layout": "plain"}}, {"tag_false"}),
    # history
    "twice": ("block", {"applied": {"events": ["apply", "rewrap", "apply"]}}, {"double_shuffle"}),
    "raw over laid out": ("block", {"applied": {"events": ["apply", "sleep", "wake", "load_raw"]}}, {"raw_write"}),
    "reloaded and never laid out": ("block", {"applied": {"events": ["apply", "reload", "load_raw"]}}, {"raw_write"}),
    "moved under graphs": ("a4w4", {"applied": {"graphs": True}, "w2_weight_scale": {"address_changed": True}}, {"stale_address"}),
    "cache of another tp": ("a4w4", {"applied": {"cache": {"tp": 2, "arch": "gfx950"}}}, {"stale_cache"}),
    "cache of another AITER": ("a4w4", {"applied": {"cache": {"aiter": "0.1.20.post1"}}}, {"stale_cache"}),
    "strided": ("a4w4", {"w13_weight": {"contiguous": False}}, {"non_contiguous"}),
    "experts of a strided view": ("a4w4", {"applied": {"eplb": True}, "w2_weight_scale": {"contiguous": False}}, {"expert_view"}),
    "experts of a tail-padded scale": ("a4w4", {"applied": {"events": ["apply", "migrate"]}, "w13_weight_scale": {"physical_shape": [64 * 4096 + 256, 160]}}, {"expert_view"}),
    # pads
    "doubled": ("padded", {"applied": {"intermediate_pad": 496}}, {"pad_invalid"}),
    "of another rule": ("padded", {"applied": {"hidden_pad": 48}}, {"pad_invalid"}),
    "pad where there is none": ("a4w4", {"applied": {"hidden_pad": 64}}, {"pad_invalid"}),
    "not reported": ("padded", {"applied": {"hidden_pad": 0}}, {"pad_unreported"}),
    "uninitialised": ("padded", {"w2_weight": {"pad_fill": "uninitialised"}}, {"pad_fill"}),
    "filled with ones": ("padded", {"w13_weight": {"pad_fill": 127}}, {"pad_fill"}),
    "scale uninitialised": ("padded", {"w13_weight_scale": {"pad_fill": "uninitialised"}}, {"pad_fill"}),
    "scale groups of a smaller weight": ("padded", {"w2_weight_scale": {"physical_shape": [64, 5120, 56]}}, {"scale_shape"}),
    "scale rows of a larger weight": ("a4w4", {"w13_weight_scale": {"physical_shape": [64, 4352, 160]}}, {"scale_shape"}),
    # loading
    "rows of another order": ("a4w4", {"applied": {"source_order": "GUGU"}}, {"source_order_mismatch"}),
    "a rank without rows": ("block", {"query": {"tp": 4}, "w13_weight": {"rows_loaded": [1024, 1024, 1024, 0]}}, {"load_coverage"}),
    "rows on two ranks": ("block", {"query": {"tp": 4}, "w13_weight": {"rows_loaded": [1024, 1024, 1024, 1032]}}, {"load_coverage"}),
    "too few rows": ("block", {"query": {"tp": 4}, "w13_weight": {"rows_loaded": [1024, 1024, 1024, 1000]}}, {"load_coverage"}),
    # kernels
    "SiTU with experts in parallel": ("situ", {"query": {"ep": 8}, "applied": {"expert_map": "mask"}}, {"unsupported"}),
    "no MXFP4 on gfx942": ("a4w4", {"query": {"arch": "gfx942", "cu_num": 304}}, {"unsupported"}),
    "no MXFP8 on gfx942": ("mxfp8", {"query": {"arch": "gfx942", "cu_num": 304}}, {"unsupported"}),
    "SiLU interleaved below the bound": ("a8w4", {"query": {"env": {}}}, {"unsupported"}),
    "gfx1250 separated": ("gfx1250", {"applied": SEP, "w13_weight": {"layout": "sep16"}}, {"unsupported"}),
    "no gate": ("bf16", {"query": {"gated": False}, "w13_weight": {"logical_shape": [64, 2048, 5120], "physical_shape": [64, 2048, 5120]}}, {"unsupported"}),
    "fp4 typed uint8": ("a4w4", {"w13_weight": {"dtype": "uint8"}}, {"unsupported"}),
    "a backend of another GPU": ("a4w4", {"query": {"arch": "gfx942", "cu_num": 304}, "applied": {"kernels": [{"backend": "AITER_MXFP8"}]}}, {"unsupported"}),
    "gate_mode before 0.1.14": ("swiglu.gui", {"query": {"aiter": "0.1.13"}}, {"version_unsupported"}),
    "gfx1250 before 0.1.17": ("gfx1250", {"query": {"aiter": "0.1.16"}}, {"version_unsupported"}),
    "SiTU before 0.1.19": ("situ", {"query": {"aiter": "0.1.18"}}, {"version_unsupported"}),
    "a stale name": ("a4w4", {"applied": {"kernels": [{"tokens": 64, "stage1": "flydsl_moe9_afp4"}]}}, {"stale_row"}),
    "fewer bits": ("a4w4", {"query": {"activation_dtype": "fp8"}}, {"numerics_deviation"}),
    "never the wanted dtype": ("situ", {"query": {"activation_dtype": "fp4x2"}}, {"numerics_deviation"}),
    "rows of another GPU": ("gfx1250", {"query": {"aiter": "0.1.15"}}, {"ambiguous_key"}),
    # dimensions
    "block scales cut": ("block", {"w13_weight": {"physical_shape": [64, 384, 5120]}, "w2_weight": {"physical_shape": [64, 5120, 192]}}, {"pad_required"}),
    "unquantized tiles": ("bf16", {"w13_weight": {"physical_shape": [64, 448, 5120]}, "w2_weight": {"physical_shape": [64, 5120, 224]}}, {"pad_required"}),
    # arguments
    "a mask for Triton": ("triton", {"query": {"ep": 2}, "applied": {"expert_map": "mask"}}, {"contract_mismatch"}),
    "an index map for AITER": ("expert parallel", {"applied": {"expert_map": "index"}}, {"contract_mismatch"}),
    "a label of other bytes": ("triton.mx", {"applied": {"swizzle_mx_scale": "CDNA4_SCALE"}}, {"contract_mismatch"}),
    "a label of another GPU": ("triton.mx", {"applied": {"swizzle_mx_scale": "GFX1250_SCALE"}}, {"contract_mismatch"}),
    "bias dropped by the caller": ("swiglu", {"query": {"bias": True}, "applied": {"bias_passed": False}}, {"contract_mismatch"}),
    "bias dropped by the kernel": ("block", {"query": {"bias": True}, "applied": {"bias_passed": True}}, {"contract_mismatch"}),
    "bf16 bias": ("swiglu", {"query": {"bias": True}, "applied": {"bias_passed": True}, "w13_bias": {"dtype": "bf16"}}, {"contract_mismatch"}),
    "no clamp": ("swiglu", {"applied": {"swiglu_limit": 0.0, "kernels": [{"backend": "triton"}]}}, {"contract_mismatch"}),
    "fn on gfx942": ("block.942", {"w13_weight": {"dtype": "fp8_e4m3fn"}}, {"contract_mismatch"}),
    "fp32 scales for MX": ("a4w4", {"w13_weight_scale": {"dtype": "fp32"}}, {"contract_mismatch"}),
    "fp4 activations for an fp8 kernel": ("a4w4", {"applied": {"kernels": [{"tokens": 64, "stage1": "cktile_a8w4_bm16"}]}}, {"contract_mismatch"}),
    # switches
    "both SiTU switches": ("situ.a8w4", {"query": {"env": {"AITER_SITUV2_A8W4": "1", "AITER_SITUV2_A4W4": "1"}}}, {"flag_conflict"}),
    "ATOM told to interleave": ("a4w4", {"query": {"engine": "atom", "env": {"ATOM_MOE_GU_ITLV": "1"}}}, {"flag_conflict"}),
    "vLLM's AITER off": ("a4w4", {"query": {"engine": "vllm", "env": {"VLLM_ROCM_USE_AITER": "0"}}}, {"flag_conflict"}),
    "SGLang's interleave off": ("swiglu.gui", {"query": {"engine": "sglang", "env": {"SGLANG_USE_AITER_MOE_GU_ITLV": "0"}}}, {"flag_conflict"}),
    "vLLM told to run Triton": ("a4w4", {"query": {"engine": "vllm", "env": {"--moe-backend": "triton"}}}, {"flag_conflict"}),
    "SGLang told to run Triton": ("block", {"query": {"engine": "sglang", "env": {"--moe-runner-backend": "triton"}}}, {"flag_conflict"}),
    "built for another GPU": ("a4w4", {"query": {"env": {"GPU_ARCHS": "gfx942"}}}, {"flag_conflict"}),
    "read by nobody": ("a4w4", {"query": {"env": {"AITER_MOE_FORCE_BF16_ACT": "1"}}}, {"flag_unknown"}),
    "of another engine": ("a4w4", {"query": {"engine": "sglang", "env": {"VLLM_ROCM_USE_AITER_MOE": "1"}}}, {"flag_unknown"}),
    "read by a later AITER": ("a4w4", {"query": {"aiter": "0.1.15", "env": {"AITER_FLYDSL_FORCE": "0"}}}, {"flag_unknown"}),
    # lists
    "CK-Tile's stage 2": ("swiglu", {"applied": {"kernels": [{"tokens": 8, "stage1": "cktile", "stage2": "cktile"}]}, "w13_weight": {"physical_shape": [64, 1280, 5120]}, "w2_weight": {"physical_shape": [64, 5120, 640]}}, {"known_bad"}),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found(name: str) -> None:
    base, changes, wanted = WRONG[name]
    found = report(bent(RIGHT[base], **changes))
    assert wanted <= {finding.code for finding in found.findings}, found
    for finding in found.findings:
        assert finding.message
        assert finding.fix or finding.code == "contract_mismatch", finding


NEAR: dict[str, tuple[str, Raw]] = {
    "one tag is not observed": ("a4w4", {"w2_weight": {"is_shuffled": None}}),
    "re-wrapped and tagged again": ("a4w4", {"applied": {"events": ["apply", "rewrap"]}}),
    "reloaded between": ("block", {"applied": {"events": ["apply", "begin_reload", "load_raw", "apply"]}}),
    "a reload under way elsewhere": ("block", {"applied": {"events": ["apply", "reload"]}}),
    "loaded, then laid out": ("block", {"applied": {"events": ["load_raw", "apply"]}}),
    "moved without graphs": ("a4w4", {"applied": {"graphs": False}, "w2_weight": {"address_changed": True}}),
    "the right cache": ("a4w4", {"applied": {"cache": {"tp": 1, "ep": 1, "arch": "gfx950", "aiter": "0.1.20", "recipe_digest": "sha256:00"}}}),
    "a strided view for Triton": ("triton", {"w13_weight": {"contiguous": False}, "w2_weight": {"contiguous": False}}),
    "experts of dense tensors move": ("a4w4", {"applied": {"eplb": True, "events": ["apply", "migrate"]}}),
    "a flattened scale": ("a4w4", {"w13_weight_scale": {"physical_shape": [64 * 4096, 160]}}),
    "rounded down to 64": ("padded", {"applied": {"intermediate_pad": 192, "hidden_pad": 64}}),
    "scales filled with anything": ("padded", {"w13_weight_scale": {"pad_fill": 127}, "w2_weight_scale": {"pad_fill": 1}}),
    "uninitialised padding of nothing": ("a4w4", {"w13_weight": {"pad_fill": "uninitialised"}}),
    "the loader knew the order": ("a4w4", {"applied": {"source_order": "GGUU"}}),
    "whole blocks leave a rank empty": ("block", {"query": {"tp": 4}, "w13_weight": {"rows_loaded": [1536, 1536, 1024, 0]}}),
    "the last rank has less": ("block", {"query": {"tp": 3}, "w13_weight": {"rows_loaded": [1536, 1536, 1024]}}),
    "no clamp for SiLU": ("a4w4", {"applied": {"swiglu_limit": 0.0}}),
    "bf16 bias for Triton": ("triton", {"w13_bias": {"dtype": "bf16"}}),
    "swizzled scales and their label": ("triton.mx", {"applied": {"swizzle_mx_scale": "CDNA4_SCALE"}, "w13_weight_scale": {"layout": "e8"}, "w2_weight_scale": {"layout": "CDNA4_SCALE"}}),
    "fnuz on gfx942": ("block.942", {"w13_weight": {"dtype": "fp8_e4m3fnuz"}}),
    "a fallback to AITER": ("bf16", {"applied": {"fallback_backend": "aiter"}}),
    "a fallback nobody knows": ("bf16", {"applied": {"fallback_backend": "something"}}),
    "a switch of an engine that is not named": ("a4w4", {"query": {"env": {"ATOM_MOE_GU_ITLV": "1"}}}),
    "a plugin's switch": ("a4w4", {"query": {"engine": "vllm", "env": {"ATOM_FUSE_SHARED_EXPERT": "0"}}}),
    "a switch of something else": ("a4w4", {"query": {"env": {"AITER_LOG_LEVEL": "INFO", "HIP_VISIBLE_DEVICES": "0"}}}),
    "built for several GPUs": ("a4w4", {"query": {"env": {"GPU_ARCHS": "gfx942;gfx950"}}}),
    "the old a16w4 path has no tags": ("swiglu.gui", {"query": {"aiter": "0.1.13"}, "applied": {"gate_mode": None}, "w13_weight": {"is_shuffled": False}, "w2_weight": {"is_shuffled": True}}),
    "labels in place of names": ("swiglu", {"applied": {"kernels": [{"tokens": 8, "stage1": "cktile", "stage2": "cktile"}]}}),
}  # fmt: skip


@pytest.mark.parametrize("name", NEAR)
def test_its_neighbour_is_silent(name: str) -> None:
    base, changes = NEAR[name]
    found = report(bent(RIGHT[base], **changes))
    assert (found.verdict, found.findings) == ("ok", ()), found


def test_layouts_are_compared_by_bytes() -> None:
    alias = bent(RIGHT["a4w4"], w13_weight_scale={"layout": "CDNA4_SCALE"})
    assert report(alias).verdict == "ok"
    narrow = bent(RIGHT["a4w4"], w13_weight={"layout": "gui16", "physical_shape": [64, 32, 5120]})
    wide = bent(RIGHT["a4w4"], w13_weight={"layout": "gui16", "physical_shape": [64, 64, 5120]})
    for raw, found in ((narrow, False), (wide, True)):  # with 16 rows per half, alternating every 16 changes nothing
        raw["applied"]["tensors"] = {"w13_weight": raw["applied"]["tensors"]["w13_weight"]}
        assert ("layout_mismatch" in codes(raw)) == found


def test_a_cache_of_another_recipe() -> None:
    query = Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype="fp4x2", aiter="0.1.20")
    other = Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype="bf16", aiter="0.1.20")
    decision = registry().resolve(query)
    for digest, found in ((decision.decision_digest, False), (registry().resolve(other).decision_digest, True)):
        raw = observation_of(decision, query).model_dump(exclude_unset=True)
        raw["applied"]["cache"] = {"recipe_digest": digest}
        assert ("stale_cache" in codes(raw)) == found


def test_the_example_of_the_design() -> None:
    seen = {
        "query": {"model": "openai/gpt-oss-120b", "arch": "gfx950", "tp": 1, "aiter": "0.1.14"},
        "applied": {
            "gate_mode": "separated",
            "tensors": {"w13_weight": {"layout": "gui16"}, "w13_weight_scale": {"layout": "e8_gui16"}},
        },
    }
    found = report(seen)
    assert found.verdict == "mismatch"
    first = next(finding for finding in found.findings if finding.code == "layout_mismatch")
    assert (first.role, first.expected, first.actual) == ("w13_weight", "sep16", "gui16")
    assert "pass gate_mode=interleave, or lay w13_weight out as sep16 (recipe mxfp4.sep16)" in (first.fix or "")
    assert "at every token count" in first.message


def test_a_report_may_carry_the_decision() -> None:
    query = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "tp": 1, "activation_dtype": "fp4x2"}
    observation = Observation.parse({"query": query})
    assert registry().check(observation).decision is None
    decided = Registry.default().check(observation, decide=True).decision
    assert decided is not None
    assert decided.recipe == "mxfp4.sep16"

"""Every switch that the engines and AITER read for their experts is in the book, with owner, default and effect."""

import pytest

from preshuffle.registry import Query
from preshuffle.registry.entries import FusionEntry
from preshuffle.registry.layer.switches import read_switches, why_unread
from support.book.strategies import BOOK

# name: owner, default (None: unset is a value of its own)
SWITCHES: dict[str, tuple[str, str | None]] = {
    "ATOM_MOE_GU_ITLV": ("atom", "0"),
    "ATOM_USE_TRITON_MOE": ("atom", None),
    "ATOM_USE_TRITON_GEMM": ("atom", "0"),
    "ATOM_USE_TRITON_MOE_DECODE": ("atom", "0"),
    "ATOM_MORI_V2": ("atom", "0"),
    "ATOM_MORI_V2_FUSED": ("atom", "0"),
    "MEGA_DISPATCH": ("atom", None),
    "ATOM_MORI_FP4_DISPATCH": ("atom", None),
    "ATOM_MORI_COMBINE_QUANT": ("atom", "none"),
    "ATOM_FUSE_SHARED_EXPERT": ("atom", "1"),
    "ATOM_FP8_BLOCKSCALE_WEIGHT_PRESHUFFLE": ("atom", "1"),
    "ATOM_ONLINE_QUANT_STREAMING": ("atom", "1"),
    "ATOM_PCP_MOE_MERGE": ("atom", "1"),
    "ATOM_DISABLE_VLLM_PLUGIN": ("atom", "0"),
    "ATOM_REQUIRES_GRAD": ("atom", "0"),
    "ATOM_V4_TORCH_MOE": ("atom", None),
    "GPTOSS_USE_GENERIC_SWIGLU_MXFP4_LAYOUT": ("atom", "0"),
    "--enable-expert-parallel": ("atom", "0"),
    "--enable-dp-attention": ("atom", "0"),
    "--eplb-enable": ("atom", "0"),
    "--online_quant_config": ("atom", None),
    "AITER_BF16_FP8_MOE_BOUND": ("aiter", "256"),
    "GPTOSS_SWIGLU_MXFP4_BF16_BOUND": ("aiter", "256"),
    "AITER_SITUV2_A8W4": ("aiter", "0"),
    "AITER_SITUV2_A4W4": ("aiter", "0"),
    "AITER_FORCE_A8W4": ("aiter", "0"),
    "AITER_MOE_A8W4_BYPASS_QUANT": ("aiter", "0"),
    "AITER_MXFP4_INTERMEDIATE": ("aiter", "0"),
    "AITER_FLYDSL_STAGE2_FP8": ("aiter", "0"),
    "AITER_FLYDSL_FORCE": ("aiter", "1"),
    "AITER_KSPLIT": ("aiter", "0"),
    "AITER_USE_NT": ("aiter", "-1"),
    "AITER_BYPASS_TUNE_CONFIG": ("aiter", "0"),
    "AITER_ONLINE_TUNE": ("aiter", "0"),
    "AITER_CONFIG_FMOE": ("aiter", None),
    "AITER_XBFLOAT16": ("aiter", "0"),
    "AITER_USE_CK_MOE_SORTING": ("aiter", "0"),
    "AITER_USE_FLYDSL_MOE_SORTING": ("aiter", "0"),
    "AITER_MOE_SORT_BACKEND": ("aiter", "auto"),
    "MXFP4_G2_KSTATIC": ("aiter", "1"),
    "GPU_ARCHS": ("aiter", "native"),
    "CU_NUM": ("aiter", "0"),
    "VLLM_ROCM_USE_AITER": ("vllm", "0"),
    "VLLM_ROCM_USE_AITER_MOE": ("vllm", "1"),
    "VLLM_ROCM_USE_AITER_MOE_SITUV2": ("vllm", "auto"),
    "VLLM_ROCM_USE_AITER_MOE_A4W4_DSV4": ("vllm", None),
    "VLLM_ROCM_AITER_MOE_DISPATCH_POLICY": ("vllm", "0"),
    "VLLM_ROCM_USE_AITER_FUSION_SHARED_EXPERTS": ("vllm", "0"),
    "VLLM_ROCM_MOE_PADDING": ("vllm", "1"),
    "VLLM_ROCM_MUSE_MOE_ONLINE_QUANT": ("vllm", ""),
    "VLLM_ROCM_MUSE_MOE_REDUCE_DTYPE": ("vllm", "fp32"),
    "VLLM_ROCM_USE_AITER_FUSED_MOE_A16W4": ("vllm", None),
    "--moe-backend": ("vllm", "auto"),
    "--quantization-config.moe.weight": ("vllm", None),
    "--quantization-config.moe.activation": ("vllm", None),
    "SGLANG_USE_AITER": ("sglang", "0"),
    "SGLANG_USE_AITER_MOE_GU_ITLV": ("sglang", "1"),
    "SGLANG_AITER_K3_OPT": ("sglang", None),
    "SGLANG_GFX1250_W4A8_MOE": ("sglang", "1"),
    "SGLANG_GFX1250_W4A8_BACKEND": ("sglang", None),
    "SGLANG_MOE_SHUFFLE_GFX1250": ("sglang", "1"),
    "SGLANG_INT4_WEIGHT": ("sglang", "0"),
    "SGLANG_MOE_PADDING": ("sglang", "0"),
    "SGLANG_DSV4_FP4_DEQUANT": ("sglang", None),
    "SGLANG_AMD_USE_FLYDSL_MEGA_MOE": ("sglang", "0"),
    "SGLANG_AMD_USE_FLYDSL_MEGA_MOE_MTPR": ("sglang", "8192"),
    "SGLANG_AMD_FLYDSL_MEGA_QUANT": ("sglang", None),
    "SGLANG_ROCM_SMALLM_MOE": ("sglang", "1"),
    "SGLANG_AITER_MOE_SORTING_DISPATCH_POLICY": ("sglang", "2"),
    "SGLANG_MORI_DISPATCH_DTYPE": ("sglang", "auto"),
    "SGLANG_MORI_COMBINE_DTYPE": ("sglang", "auto"),
    "SGLANG_MORI_EP_V2": ("sglang", None),
    "SGLANG_FORCE_MXFP8_BLOCK_CONVERT": ("sglang", None),
    "--moe-runner-backend": ("sglang", "auto"),
    "--moe-a2a-backend": ("sglang", "none"),
    "--disable-shared-experts-fusion": ("sglang", "0"),
    "--enable-two-batch-overlap": ("sglang", "0"),
    "--enable-single-batch-overlap": ("sglang", "0"),
    "--enforce-shared-experts-fusion": ("sglang", "0"),
    "--all2all-backend": ("vllm", "allgather_reducescatter"),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_has_its_owner_its_default_and_what_it_changes(name: str) -> None:
    flag = BOOK.flags[name]
    assert flag.owner == SWITCHES[name][0]
    assert flag.affects
    assert flag.meaning
    assert flag.evidence
    if SWITCHES[name][1] is not None:
        assert flag.default == SWITCHES[name][1]


@pytest.mark.parametrize("name", BOOK.flags)
def test_a_default_is_a_value_that_the_switch_may_have(name: str) -> None:
    flag = BOOK.flags[name]
    assert flag.default is None or not flag.values or flag.default in flag.values
    assert not flag.boolean or flag.default in (None, "0", "1")


@pytest.mark.parametrize("entry", BOOK.fusions.values(), ids=BOOK.fusions)
def test_a_fusion_rests_on_switches_and_features_that_the_book_has(entry: FusionEntry) -> None:
    assert entry.engine in BOOK.engines
    assert set(entry.aiter_features) <= set(BOOK.features)
    for conditions in (entry.conditions(), *entry.choices()):
        for name, condition in conditions.items():
            if name.startswith("env."):
                flag = BOOK.flags[name.removeprefix("env.")]
                assert flag.owner == entry.engine
                assert not flag.values or all(value in flag.values for value in condition.values)


def query(engine: str | None = None, aiter: str | None = None, **env: str) -> Query:
    return Query.parse({"model": "openai/gpt-oss-120b", "arch": "gfx950", "engine": engine, "aiter": aiter, "env": env})


@pytest.mark.parametrize(
    ("name", "engine", "aiter", "says"),
    [
        ("ATOM_V4_TORCH_MOE", "atom", None, "atom reads it no more; pull request 1304 deleted it"),
        ("VLLM_ROCM_USE_AITER_FUSED_MOE_A16W4", "vllm", None, "vllm reads it no more; 0.33.0 removed it"),
        ("VLLM_ROCM_USE_AITER_FUSED_MOE_A16W4", "vllm@0.33.0", None, "vllm 0.33.0 reads it no more; 0.33.0 removed it"),
        ("AITER_USE_OPUS_MOE_SORTING", None, None, "aiter reads it no more; 0.1.14 removed it"),
        ("AITER_USE_OPUS_MOE_SORTING", None, "0.1.10", "aiter 0.1.10 does not read it yet; 0.1.11 is the first"),
        ("AITER_MOE_FORCE_BF16_ACT", None, None, "no release of aiter reads it"),
        ("AITER_BF16_FP8_BOUND", None, "0.1.20", "aiter 0.1.20 reads it no more; 0.1.14 removed it"),
        (
            "AITER_BF16_FP8_MOE_BOUNDS",
            None,
            None,
            "no known version of aiter reads it; the book knows AITER_BF16_FP8_MOE_BOUND",
        ),
        ("AITER_QQ_MOE_QQ", None, None, "no known version of aiter reads it"),
        ("GPTOSS_USE_GENERIC_SWIGLU_MXFP4_LAYOUT", "atom", None, "no release of atom reads it"),
    ],
)
def test_a_switch_that_is_gone_or_never_was_is_recognised(
    name: str, engine: str | None, aiter: str | None, says: str
) -> None:
    asked = query(engine, aiter, **{name: "1"})
    (finding,) = read_switches(asked, BOOK).findings
    assert finding.code == "flag_unknown"
    assert finding.message == f"{name}=1 changes nothing: {says}"
    assert finding.fix == f"unset {name}"


def test_a_version_that_still_reads_it_reads_it() -> None:
    name = "VLLM_ROCM_USE_AITER_FUSED_MOE_A16W4"
    assert read_switches(query("vllm@0.32.0", **{name: "1"}), BOOK).findings == ()


def test_an_observation_that_names_no_version_says_nothing_of_removed_switches() -> None:
    flag = BOOK.flags["VLLM_ROCM_USE_AITER_FUSED_MOE_A16W4"]
    assert why_unread(flag, query("vllm")) is not None
    assert why_unread(flag, query("vllm"), newest=False) is None


@pytest.mark.parametrize("name", ["PATH", "HIP_VISIBLE_DEVICES", "VLLM_ROCM_USE_AITER_MHA", "ATOM_NEW", "AITER_LOG"])
def test_what_somebody_else_may_read_is_left_alone(name: str) -> None:
    assert read_switches(query("vllm", **{name: "1"}), BOOK).findings == ()

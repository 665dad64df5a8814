"""What the dispatch does for chosen calls: activations, errors, layouts read, and every token count."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from preshuffle.registry.kernels import DispatchCall, KernelChoice, dispatch, packaged_families, reachable_buckets

GPT_OSS = {
    "gfx": "gfx950", "cu_num": 256, "tokens": 1, "model_dim": 3072, "inter_dim": 3072, "expert": 128, "topk": 4,
    "activation": "Swiglu", "weight_dtype": "fp4x2", "quant_type": "per_1x32",
}  # fmt: skip


def call(**fields: object) -> DispatchCall:
    return DispatchCall.model_validate(GPT_OSS | fields)


def w13(choice: KernelChoice) -> str | None:
    assert choice.stage1 is not None
    return choice.stage1.reads.get("w13_weight")


@pytest.mark.parametrize(
    ("fields", "activation", "func", "layout"),
    [
        ({"tokens": 1}, "bf16", "cktile_moe_stage1", "sep16"),
        ({"tokens": 256}, "fp4x2", "_flydsl_stage1_wrapper", "sep16"),
        ({"tokens": 1, "gate_mode": "interleave"}, "bf16", "cktile_moe_stage1", "gui16"),
        ({"tokens": 256, "gate_mode": "interleave"}, "fp8", "cktile_moe_stage1", "gui16"),
        ({"activation": "Silu"}, "fp4x2", "_flydsl_stage1_wrapper", "sep16"),
        ({"activation": "Silu", "is_shuffled": False}, "fp4x2", "ck_moe_stage1", "plain"),
        ({"activation": "Silu", "weight_dtype": "fp8"}, "fp8", "_flydsl_stage1_wrapper", "gui16"),
        ({"activation": "Silu", "weight_dtype": "uint8"}, "fp4x2", "asm_stage1", None),
        ({"activation": "Situv2"}, "bf16", "_flydsl_stage1_wrapper", "sep16"),
        ({"activation": "Situv2", "env": {"AITER_SITUV2_A8W4": "1"}}, "fp8", "_flydsl_stage1_wrapper", "gui16"),
        ({"gfx": "gfx1250", "gate_mode": "interleave"}, "fp4x2", "grouped_gemm_gfx1250_a8w4", "gurow16"),
        ({"gfx": "gfx1250", "weight_dtype": "bf16", "quant_type": "No"}, "fp4x2", "ck_moe_stage1", "sep16"),
        ({"activation": "Silu", "weight_dtype": "i4x2"}, "bf16", "_flydsl_stage1_wrapper", "sep16_int4"),
        ({"aiter": "0.1.7.post2.dev18", "tokens": 512}, "fp4x2", "cktile_moe_stage1", "gui16"),
    ],
)
def test_a_call_is_answered(fields: dict[str, object], activation: str, func: str, layout: str | None) -> None:
    choice = dispatch(call(**fields))
    assert choice.stage1 is not None
    assert (choice.activation_dtype, choice.stage1.func, w13(choice)) == (activation, func, layout)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"dtype": "fp32"}, "AssertionError"),
        ({"activation": "Situv2", "flydsl": False}, "NotImplementedError"),
        ({"activation": "Situv2", "is_shuffled": False}, "NotImplementedError"),
        ({"activation": "Situv2", "ep": True}, "NotImplementedError"),
        ({"gfx": "gfx1250", "aiter": "0.1.7"}, "KeyError"),
        ({"gfx": "gfx1100", "activation": "Silu", "aiter": "0.1.7"}, "KeyError"),
        ({"env": {"AITER_BF16_FP8_MOE_BOUND": "many"}}, "ValueError"),
        ({"activation": "Silu", "is_shuffled": False, "env": {"AITER_KSPLIT": "x"}}, "ValueError"),
        ({"activation": "Silu", "env": {"AITER_USE_NT": "x"}}, "ValueError"),
        ({"activation": "Silu", "ep": True, "topk": 1}, "ZeroDivisionError"),
    ],
)
def test_errors_of_aiter_are_answers(fields: dict[str, object], error: str) -> None:
    choice = dispatch(call(**fields))
    assert choice.error is not None
    assert choice.error.startswith(f"{error}: ")
    assert choice.stage1 is None


def test_a_choice_is_json() -> None:
    choice = dispatch(call())
    assert KernelChoice.model_validate_json(choice.model_dump_json()) == choice
    assert set(json.loads(choice.model_dump_json())) == set(KernelChoice.model_fields)


@pytest.mark.parametrize("wrong", [{"tokens": -1}, {"topk": 0}, {"gfx": "MI300X"}, {"aiter": "main"}, {"colour": 1}])
def test_calls_are_validated(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        call(**wrong)


def outcome(choice: KernelChoice) -> tuple[object, ...]:
    return tuple(value for name, value in choice if name not in ("padded_tokens", "source", "notes"))


calls = st.builds(
    call,
    gfx=st.sampled_from(["gfx942", "gfx950", "gfx1250"]),
    activation=st.sampled_from(["Silu", "Swiglu", "Situv2"]),
    weight_dtype=st.sampled_from(["fp4x2", "fp8", "i4x2"]),
    gate_mode=st.sampled_from(["separated", "interleave"]),
    inter_dim=st.sampled_from([192, 256, 384, 3072]),
    aiter=st.sampled_from([None, "0.1.7", "0.1.10", "0.1.13", "0.1.19"]),
    env=st.sampled_from([{}, {"AITER_BF16_FP8_MOE_BOUND": "300"}, {"GPTOSS_SWIGLU_MXFP4_BF16_BOUND": "5000000"}]),
)


@settings(max_examples=60, deadline=None)
@given(calls, st.integers(1, 300_000))
def test_buckets_cover_every_token_count_and_hold_within(template: DispatchCall, tokens: int) -> None:
    buckets = reachable_buckets(template)
    assert buckets[0].lo == 1
    assert buckets[-1].hi is None
    assert [bucket.hi for bucket in buckets[:-1]] == [bucket.lo - 1 for bucket in buckets[1:]]
    (held,) = [bucket for bucket in buckets if bucket.lo <= tokens and (bucket.hi is None or tokens <= bucket.hi)]
    assert outcome(dispatch(template.model_copy(update={"tokens": tokens}))) == outcome(held.choice)


def test_a_bound_between_two_powers_of_two_splits_a_bucket() -> None:
    env = {"GPTOSS_SWIGLU_MXFP4_BF16_BOUND": "300"}
    dtypes = [(bucket.lo, bucket.choice.activation_dtype) for bucket in reachable_buckets(call(env=env))]
    assert (300, "fp4x2") in dtypes
    assert {dtype for lo, dtype in dtypes if lo < 300} == {"bf16"}


@pytest.mark.parametrize(
    ("name", "family", "encoded"),
    [
        ("flydsl_moe1_afp8_wfp4_bf16_t32x64x256_w4_gui_kw4_fp8", "flydsl_moe1", {"gui": "_gui", "k_wave": "4"}),
        ("flydsl_moe2_layout_afp8_wfp4_bf16_t32x128x128_atomic_nt_sbm32", "flydsl_moe2_layout", {"mode": "atomic"}),
        ("flydsl_moe2_afp8_wfp4_bf16_t32x256x128_atomic_bnt2_persist", "flydsl_moe2", {"persist": "_persist"}),
        ("flydsl_mxmoe_g1_a4w4_16x256x256_f16in_nt", "flydsl_mxmoe_g1", {"flags": "_f16in_nt"}),
        ("opus_moe2_afp8_wfp4_fp8_t64x256x256_sbm64_rbn3584", "opus_moe2", {"sort_block_m": "64"}),
        ("_ZN5aiter56fmoe_stage1_bf16_pertokenFp8_doweight_g1u1_32x64_4tg_pf3E", "asm_stage1", {"tile_n": "64"}),
    ],
)
def test_a_name_tells_its_family_and_what_it_encodes(name: str, family: str, encoded: dict[str, str]) -> None:
    parsed = packaged_families().parse_name(name)
    assert parsed is not None
    assert parsed[0] == family
    assert encoded.items() <= parsed[1].items()


def test_names_of_nobody_are_unknown() -> None:
    assert packaged_families().parse_name("") is None
    assert packaged_families().parse_name("flydsl_moe3_x") is None


def test_families_read_roles_of_their_stage() -> None:
    roles = {"1": ("w13_",), "2": ("w2_",), "1-stage": ("w13_", "w2_")}
    for family in packaged_families():
        for variant in family.variants:
            assert all(role.startswith(roles[family.stage]) for role in variant.reads), family.id
        assert family.evidence, family.id

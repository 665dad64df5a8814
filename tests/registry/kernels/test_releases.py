"""Releases 0.1.10 to 0.1.17: what each tag's `get_2stage_cfgs` and table merge decide otherwise than later ones."""

from __future__ import annotations

from typing import Any

import pytest

from preshuffle.registry.kernels import DispatchCall, KernelChoice, KernelTables, dispatch, packaged_families

COLUMNS = (
    "cu_num,token,model_dim,inter_dim,expert,topk,act_type,dtype,q_dtype_a,q_dtype_w,q_type,use_g1u1,doweight_stage1,"
    "block_m,ksplit,us1,kernelName1,err1,us2,kernelName2,err2,us,run_1stage,tflops,bw,_tag"
)
FP4, FP8 = "torch.float4_e2m1fn_x2", "torch.float8_e4m3fn"
FLYDSL = "flydsl_moe1_afp4_wfp4_bf16_t32x128x256_w3", "flydsl_moe2_afp4_wfp4_bf16_t32x128x256_atomic"
CK = "moe_ck2stages_gemm1_x", "moe_ck2stages_gemm2_x"


def row(kernels: tuple[str, str] = FLYDSL, tag: str = "", cu_num: int = 256, us: float = 2.0, **dtypes: str) -> str:
    what = f"{dtypes.get('a', FP4)},{dtypes.get('w', FP4)},QuantType.{dtypes.get('q', 'per_1x32')}"
    key = f"{cu_num},64,4096,1024,64,4,ActivationType.Silu,torch.bfloat16,{what},1,0"
    return f"{key},32,0,1.0,{kernels[0]},0.0%,1.0,{kernels[1]},0.0%,{us},0,1.0,1.0,{tag}"


def chosen(version: str, *rows: str, second: tuple[str, ...] = (), **fields: object) -> KernelChoice:
    base = {
        "gfx": "gfx950", "cu_num": 256, "tokens": 64, "model_dim": 4096, "inter_dim": 1024, "expert": 64, "topk": 4,
        "activation": "Silu", "weight_dtype": "fp4x2", "quant_type": "per_1x32", "is_shuffled": True, "aiter": version,
    }  # fmt: skip
    files = {"a.csv": rows, "b.csv": second}
    tables = {name: "\n".join([COLUMNS, *lines]).encode() + b"\n" for name, lines in files.items() if lines}
    return dispatch(DispatchCall.model_validate(base | fields), KernelTables.from_bytes(tables) if tables else None)


def kernels(choice: KernelChoice) -> tuple[str, str]:
    assert choice.stage1 is not None
    assert choice.stage2 is not None
    return choice.stage1.kernel, choice.stage2.kernel


@pytest.mark.parametrize("version", ["0.1.12", "0.1.14", "0.1.17"])
def test_without_flydsl_a_tagged_row_answers_for_a_flydsl_row(version: str) -> None:
    rows = (row(), row(CK, "flydsl_fallback"))
    assert kernels(chosen(version, *rows, flydsl=True)) == FLYDSL
    instead = chosen(version, *rows, flydsl=False)
    assert kernels(instead) == CK
    assert instead.source == "a.csv:3"
    assert any("needs FlyDSL" in note for note in instead.notes)


@pytest.mark.parametrize("version", ["0.1.12", "0.1.16"])
def test_without_flydsl_and_such_a_row_the_heuristic_answers(version: str) -> None:
    found = chosen(version, row(), flydsl=False)
    assert (found.tuned, found.source) == (False, "a.csv:2")
    assert FLYDSL[0] not in kernels(found)


def test_later_releases_bind_a_flydsl_row_by_name() -> None:
    assert chosen("0.1.18", row(), row(CK, "flydsl_fallback"), flydsl=False).tuned is True


@pytest.mark.parametrize(("version", "found"), [("0.1.8", False), ("0.1.10", True), ("0.1.13", True), ("0.1.16", True)])
def test_rows_of_other_compute_units_are_other_rows_from_0_1_10_on(version: str, found: bool) -> None:
    faster = row(CK, cu_num=80, us=1.0)
    assert chosen(version, row(CK), second=(faster,)).tuned is found


@pytest.mark.parametrize(
    ("version", "found"), [("0.1.9", False), ("0.1.10", True), ("0.1.12", False), ("0.1.13", True)]
)
def test_rows_of_fp8_blocks_count_for_many_slots_only_in_some_releases(version: str, found: bool) -> None:
    line = row(CK, a=FP8, w=FP8, q="per_1x128").replace(",64,4096", ",16,4096")
    given = chosen(version, line, weight_dtype="fp8", quant_type="per_1x128", tokens=16)
    assert (given.source is not None) is found


@pytest.mark.parametrize(
    ("version", "func"), [("0.1.14", "cktile_moe_stage1"), ("0.1.16.post1", "_flydsl_stage1_wrapper")]
)
def test_interleaved_mxfp8_weights_with_swiglu(version: str, func: str) -> None:
    call: dict[str, Any] = {"weight_dtype": "fp8", "activation": "Swiglu", "gate_mode": "interleave", "tokens": 4096}
    stage = chosen(version, flydsl=True, **call).stage1
    assert stage is not None
    assert stage.func == func


@pytest.mark.parametrize(("version", "tile"), [("0.1.14", "x256_"), ("0.1.16", "x256_"), ("0.1.16.post1", "x128_")])
def test_stage_2_takes_the_wide_tile_of_k_whether_it_divides_or_not(version: str, tile: str) -> None:
    found = chosen(version, flydsl=True, activation="Swiglu", inter_dim=384, tokens=4096)
    assert tile in kernels(found)[1]


@pytest.mark.parametrize(("version", "unshuffled"), [("0.1.14", "ck_moe_stage1"), ("0.1.17", "cktile_moe_stage1")])
def test_swiglu_that_nothing_covers(version: str, unshuffled: str) -> None:
    stage = chosen(version, activation="Swiglu", is_shuffled=False, tokens=4096).stage1
    assert stage is not None
    assert stage.func == unshuffled


def test_old_names_of_quantized_output_are_known() -> None:
    parsed = packaged_families().parse_name("flydsl_moe1_afp4_wfp4_bf16_t16x128x256_w3_kb7_bnt0_go_fq")
    assert parsed is not None
    assert (parsed[0], parsed[1]["out_fp4"]) == ("flydsl_moe1", "_fq")

"""Checks with kernel tables: what a table of another shape, or of a later AITER, says of a deployment."""

from pathlib import Path
from typing import Any

from preshuffle.registry import Observation, Query, Registry, Report, observation_of
from support.book.observations import A4W4, SEPARATED, deployment

Raw = dict[str, Any]
COLUMNS = (
    "gfx,cu_num,token,model_dim,inter_dim,expert,topk,act_type,dtype,q_dtype_a,q_dtype_w,q_type,use_g1u1,doweight_stage1,"
    "block_m,ksplit,us1,kernelName1,err1,us2,kernelName2,err2,us,run_1stage,tflops,bw"
)
FLYDSL = "flydsl_moe1_afp4_wfp4_bf16_t32x128x256_w2", "flydsl_moe2_afp4_wfp4_bf16_t32x128x256_atomic"
AITER = {"gate_mode": "separated", "kernels": [{"backend": "aiter"}]}


def row(tokens: int, inter_dim: int) -> str:
    key = f"gfx950,256,{tokens},5120,{inter_dim},64,6,ActivationType.Silu,torch.bfloat16,torch.float4_e2m1fn_x2"
    key += ",torch.float4_e2m1fn_x2,QuantType.per_1x32,1,0"
    return f"{key},32,0,1.0,{FLYDSL[0]},0.0%,1.0,{FLYDSL[1]},0.0%,2.0,0,1.0,1.0"


def checked(folder: Path, raw: Raw, inter_dim: int) -> Report:
    table = folder / "tuned_fmoe.csv"
    table.write_text("\n".join([COLUMNS, *(row(tokens, inter_dim) for tokens in (1, 16, 64, 256))]) + "\n")
    return Registry.load(kernel_tables=[table]).check(Observation.parse(raw))


def test_a_table_of_a_later_aiter_does_not_answer(tmp_path: Path) -> None:
    """0.1.10 has no FlyDSL: rows that name its kernels are of another version's table."""
    raw = deployment(A4W4, SEPARATED, aiter="0.1.10.post2", applied={"kernels": [{"backend": "aiter"}]}, tokens=[1, 64])
    assert checked(tmp_path, raw, 2048).findings == ()


def test_a_shape_without_a_row_is_untuned(tmp_path: Path) -> None:
    raw = deployment(A4W4, SEPARATED, applied=AITER, tokens=[64])
    assert [finding.code for finding in checked(tmp_path, raw, 1024).findings] == ["untuned"]
    assert checked(tmp_path, raw, 2048).findings == ()


def test_nothing_is_untuned_where_the_shape_of_a_rank_is_unknown(tmp_path: Path) -> None:
    raw = deployment(A4W4, SEPARATED, applied=AITER, tokens=[64])
    query = {name: value for name, value in raw["query"].items() if name not in ("tp", "ep")}
    alone = {"query": query, "applied": AITER | {"tensors": {"w2_weight": {"layout": "sep16"}}}}
    assert checked(tmp_path, alone, 1024).findings == ()


def test_a_row_of_a_later_kernel_in_this_versions_own_table_is_found(tmp_path: Path) -> None:
    """Tables tied to an AITER answer for it: what they name and it lacks is an error, in check and in resolve."""
    query = Query(model="amd/Kimi-K2.5-MXFP4", arch="gfx950", tp=4, aiter="0.1.14", tokens=(4,))
    key = "gfx950,256,4,7168,512,384,8,ActivationType.Silu,torch.bfloat16,torch.float4_e2m1fn_x2"
    names = "flydsl_mxmoe_g1_a4w4_16x256x256_f16in_nt,0.0%,1.0,flydsl_mxmoe_g2_a4w4_16x256x256_atomic_nt"
    line = f"{key},torch.float4_e2m1fn_x2,QuantType.per_1x32,1,0,16,0,1.0,{names},0.0%,2.0,0,1.0,1.0"
    table = tmp_path / "tuned_fmoe.csv"
    table.write_text(f"{COLUMNS}\n{line}\n")
    own, foreign = (Registry.load(kernel_tables=[path]) for path in (f"{table}@0.1.14", table))
    decision = own.resolve(query)
    (found,) = (finding for finding in decision.findings if finding.code == "version_unsupported")
    assert (found.severity, found.expected) == ("error", "AITER 0.1.18 or newer")
    assert found in own.check(observation_of(decision, query)).findings
    decision = foreign.resolve(query)
    assert [kernel.tuned for kernel in decision.kernels] == [None]
    assert "version_unsupported" not in {finding.code for finding in decision.findings}


def test_other_numerics_name_the_variable_and_its_value() -> None:
    registry, name = Registry.default(), "AITER_BF16_FP8_MOE_BOUND"
    fields = {"model": "openai/gpt-oss-20b", "arch": "gfx950", "activation_dtype": "bf16"}
    never = Query.parse({**fields, "env": {name: "0"}})
    (finding,) = registry.check(observation_of(registry.resolve(never), never)).findings
    assert finding.code == "numerics_deviation"
    assert str(finding.fix).startswith(f"set {name}=2147483647")
    mended = Query.parse({**fields, "env": {name: "2147483647"}})
    assert registry.check(observation_of(registry.resolve(mended), mended)).verdict == "ok"

"""Checks with kernel tables: what a table of another shape, or of a later AITER, says of a deployment."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preshuffle.registry import Observation, Query, Registry, Report, observation_of
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.check import Checker
from preshuffle.registry.check.deployment.evidence import Evidence
from preshuffle.registry.check.deployment.kernel_runs import KernelRun
from preshuffle.registry.check.rules.kernels import unsupported, untuned, without_untuned_beside
from preshuffle.registry.layer import Predictor, supposed_layers
from preshuffle.registry.values.finding import Finding
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


SITU = {**A4W4, "activation": "Situv2"}


def test_nothing_is_untuned_where_no_kernel_runs(tmp_path: Path) -> None:
    """0.1.18 has no such activation, and raises at every token count."""
    raw = deployment(SITU, SEPARATED, aiter="0.1.18", applied=AITER, tokens=[64, 4096])
    codes = [finding.code for finding in checked(tmp_path, raw, 1024).findings]
    assert "unsupported" in codes
    assert "untuned" not in codes


def evidence_of(folder: Path, *errors: tuple[int, int | None, str | None]) -> Evidence:
    """Return real evidence whose runs are replaced: first and last token count, and what AITER raises."""
    table = folder / "tuned_fmoe.csv"
    table.write_text(f"{COLUMNS}\n{row(64, 2048)}\n")
    registry = Registry.load(kernel_tables=[table])
    raw = deployment(A4W4, SEPARATED, applied=AITER, tokens=[64])
    observation, memo = Observation.parse(raw), Memo()
    checker = Checker(registry.book, Predictor(registry.tables, memo), memo)
    layers = supposed_layers(observation.query, registry.book, memo, observation.applied)
    evidence = checker._judge(layers).evidence
    runs = tuple(KernelRun(lo, hi, "aiter", "k", predicted=True, tuned=False, error=error) for lo, hi, error in errors)
    return replace(evidence, runs=runs)


@pytest.mark.parametrize(
    ("errors", "left"),
    [
        ([(1, 63, "E: x"), (64, None, None)], "at 64 and more tokens: a heuristic kernel runs"),
        ([(1, 63, None), (64, None, "E: x")], "at 1 to 63 tokens: a heuristic kernel runs"),
        ([(1, 63, "E: x"), (64, None, "E: y")], None),
        ([(1, None, None)], "at every token count: a heuristic kernel runs"),
    ],
)
def test_token_counts_that_are_unsupported_are_not_untuned_too(
    tmp_path: Path, errors: list[tuple[int, int | None, str | None]], left: str | None
) -> None:
    evidence = evidence_of(tmp_path, *errors)
    found = [*unsupported(evidence), *untuned(evidence)]
    kept = without_untuned_beside(evidence, found)
    texts = [finding.message for finding in kept if finding.code == "untuned"]
    assert [text.endswith(left) for text in texts] == [True] if left else texts == []
    assert [f for f in kept if f.code == "unsupported"] == [f for f in found if f.code == "unsupported"]


def test_a_lone_untuned_stays(tmp_path: Path) -> None:
    """Where calls or versions acquit what is unsupported, the shape is untuned all the same."""
    evidence = evidence_of(tmp_path, (1, None, "E: x"))
    alone = tuple(untuned(evidence))
    assert without_untuned_beside(evidence, alone) == alone
    other = Finding.of("unsupported", "of something else", fix="none")
    assert without_untuned_beside(evidence, (other, *alone)) == (other, *alone)

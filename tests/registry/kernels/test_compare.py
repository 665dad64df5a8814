"""Two versions on the same calls, and one dispatch explained."""

from typing import Any

import pytest

from preshuffle.registry.kernels import DispatchCall, KernelTables, dispatch, reachable_buckets, trace
from preshuffle.registry.kernels.survey.compare import SEVERITIES, calls_of, changes, ranked, severity_of
from preshuffle.registry.kernels.survey.trace import says
from support.aiter.kernel_rows import BASE, CK1, MX, call, table, tables


def mx(**fields: object) -> DispatchCall:
    return DispatchCall.model_validate(MX | fields)


def test_nothing_changes_between_a_version_and_itself() -> None:
    made = tables(table({}, {"token": "128"}))
    for subject in (mx(), mx(gate_mode="interleave"), call()):
        assert list(changes("same", subject, ("0.1.20", made), ("0.1.20", made))) == []


def test_a_version_that_reads_other_bytes_is_the_gravest_change() -> None:
    found = ranked(changes("gpt-oss", mx(), ("0.1.13", None), ("0.1.20", None)))
    assert {change.severity for change in found} == {"layout"}
    assert (found[0].lo, found[-1].hi) == (1, None)
    assert found[0].before.reads["w13_weight"] == "gui16"
    assert found[0].after.reads["w13_weight"] == "sep16"


@pytest.mark.parametrize(
    ("before", "after", "severity"),
    [
        ({}, {"gate_mode": "interleave"}, "layout"),
        ({}, {"dtype": "fp32"}, "error"),
        ({"gate_mode": "interleave"}, {"gate_mode": "interleave", "tokens": 256}, "activation"),
        ({"tokens": 256}, {"tokens": 4096}, "kernel"),
        ({"tokens": 1}, {"tokens": 2}, None),
        ({"dtype": "fp32"}, {"dtype": "fp32", "tokens": 300}, None),
    ],
)
def test_severity_is_the_gravest_difference(
    before: dict[str, Any], after: dict[str, Any], severity: str | None
) -> None:
    assert severity_of(dispatch(mx(**before)), dispatch(mx(**after))) == severity


def test_ranges_are_exactly_those_where_the_choices_differ() -> None:
    old, new = (
        tables(table({"token": "64"})),
        tables(table({"token": "64", "kernelName1": CK1.replace("32x64", "64x64")})),
    )
    (change,) = changes("x", call(), ("0.1.20", old), ("0.1.20", new))
    assert (change.severity, change.lo, change.hi) == ("kernel", 33, 64)
    for tokens in (1, 32, 33, 64, 65, 5000):
        differs = severity_of(dispatch(call(tokens=tokens), old), dispatch(call(tokens=tokens), new)) is not None
        assert differs == (33 <= tokens <= 64), tokens


def test_calls_of_rows_are_one_per_shape_and_gate_mode() -> None:
    rows = tables(
        table(
            {},
            {"token": "1"},
            {"q_type": "QuantType.per_1x32", "q_dtype_w": "torch.float4_e2m1fn_x2"},
            {"q_dtype_w": "torch.float64"},
            {"act_type": "ActivationType.Tanh"},
            {"expert": "0"},
        )
    ).rows
    calls = calls_of(rows)
    assert [subject.gate_mode for subject in calls.values()] == ["separated", "separated", "interleave"]
    assert "gfx942 304 CUs, 4096×512, 64 experts top 4, Silu bf16 No" in calls


def test_ranked_keeps_the_order_within_a_severity() -> None:
    found = list(changes("a", mx(), ("0.1.13", None), ("0.1.20", None)))
    assert [change.lo for change in ranked(found)] == [change.lo for change in found]
    assert SEVERITIES[0] == "layout"


def test_a_trace_names_the_row_and_what_its_neighbours_lack() -> None:
    made = tables(table({}, {"token": "128"}, {"topk": "8"}, {"model_dim": "1", "inter_dim": "1", "expert": "1"}))
    found = trace(call(tokens=33), made)
    assert found.choice == dispatch(call(tokens=33), made)
    assert found.lookup == "t0.csv:2"
    assert found.padding == "33 tokens count as 64 (below 32768: the next power of two)"
    assert [(row.source, row.why_not) for row in found.considered] == [
        ("t0.csv:2", ""), ("t0.csv:4", "topk 8"), ("t0.csv:3", "token 128"),
    ]  # fmt: skip
    assert (found.key["token"], found.key["gfx"], found.key["use_g1u1"]) == (64, "gfx942", 1)
    assert found.rule == "ck"


def test_a_trace_says_which_rule_fired_and_why() -> None:
    found = trace(mx(tokens=16, bias=True, hidden_pad=192))
    assert found.rule == "cktile_split_k"
    assert says(found.rule) in found.because
    assert found.passed == ("mxmoe", "one_stage", "flydsl", "cktile_gate_up", "flydsl_int4", "flydsl_mx")
    assert "below GPTOSS_SWIGLU_MXFP4_BF16_BOUND=256 tokens, else fp4x2; here 16 tokens" in found.activation
    assert found.lookup.startswith("no tables")
    assert found.considered == ()


def test_a_trace_says_what_is_dropped_without_a_word() -> None:
    row = {"kernelName1": "flydsl_mxmoe_g1_a4w4_32x256x256_nt", "kernelName2": "flydsl_mxmoe_g2_a4w4_32x256x256_atomic"}
    keys = {
        **BASE, **row, "gfx": "gfx950", "cu_num": "256", "token": "256", "model_dim": "3072", "inter_dim": "3072",
        "expert": "128", "act_type": "ActivationType.Swiglu", "q_type": "QuantType.per_1x32",
        "q_dtype_a": "torch.float4_e2m1fn_x2", "q_dtype_w": "torch.float4_e2m1fn_x2",
    }  # fmt: skip
    found = trace(mx(tokens=256, bias=True, hidden_pad=192), tables(table(keys)))
    assert found.rule == "mxmoe"
    first = found.stages[0]
    assert first.family == "flydsl_mxmoe_g1"
    assert set(first.drops) == {"bias", "hidden_pad=192", "activation=Swiglu"}
    assert first.reads["w13_weight"] == "sep16"


@pytest.mark.parametrize(
    ("fields", "rule", "words"),
    [
        ({"dtype": "fp32"}, "none", "AssertionError"),
        ({"gfx": "gfx1250", "gate_mode": "interleave"}, "grouped", "grouped gfx1250"),
        ({"env": {"AITER_BF16_FP8_MOE_BOUND": "x"}}, "none", "ValueError"),
        ({"activation": "Silu", "is_shuffled": False}, "ck", "heuristic"),
        (
            {"activation": "Silu", "weight_dtype": "fp8", "quant_type": "per_1x128", "tokens": 64},
            "one_stage",
            "one stage",
        ),
    ],
)
def test_every_kind_of_end_is_explained(fields: dict[str, Any], rule: str, words: str) -> None:
    found = trace(mx(**fields), KernelTables.from_bytes({"t0.csv": table({})}))
    assert found.rule == rule
    assert words in found.because
    assert found.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("version", ["0.1.7", "0.1.13", "0.1.16", "0.1.19", None])
def test_the_trace_is_the_dispatch_at_every_range(version: str | None) -> None:
    made = tables(table({}, {"act_type": "ActivationType.Gelu", "token": "32"}))
    for bucket in reachable_buckets(call(aiter=version), made):
        subject = call(aiter=version, tokens=bucket.lo)
        assert trace(subject, made).choice == dispatch(subject, made)

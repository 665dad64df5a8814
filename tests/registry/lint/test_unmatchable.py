"""Rules that can never match do not load; rules on a user's own names do."""

from pathlib import Path

import pytest

from preshuffle.registry import BookError, Query
from preshuffle.registry.lint.conditions import condition_problems
from support.book.strategies import BOOK, load_overlay

RULE = "rules:\n  r1:\n    when: {when}\n    use: null\n    because: a test\n"
GPT_OSS = "openai/gpt-oss-120b"
NEVER = [
    ("{tp: '>4096'}", "3:12", "no tp satisfies '>4096'; it is a whole number from 1 to 4096"),
    ("{ep: '<1'}", "3:12", "no ep satisfies '<1'"),
    ("{dp: '>4096'}", "3:12", "no dp satisfies '>4096'"),
    ("{tp: 0}", "3:12", "greater than or equal to 1, found 0"),
    ("{ep: [0, 2]}", "3:12", "greater than or equal to 1, found 0"),
    ("{dp: 5000}", "3:12", "less than or equal to 4096, found 5000"),
    ("{engine: ''}", "3:12", "an engine's name is never empty"),
    ("{model: ''}", "3:12", "at least 1 character"),
    ("{tp: '>2,<3'}", "3:12", "no tp satisfies '>2,<3'"),
    ("{num_experts: '>1048576'}", "3:12", "no num_experts satisfies"),
    ("{num_experts: 8, top_k: 9}", "3:28", "9 experts for each token, of at most 8 in all"),
    ("{num_experts: '<8', top_k: '>=8'}", "3:31", "8 experts for each token, of at most 7 in all"),
    ("{engine: null, engine_version: '>=0.30'}", "3:26", "no version without an engine"),
    ("{engine: sglang, env: {VLLM_ROCM_USE_AITER: '1'}}", "3:34", "VLLM_ROCM_USE_AITER is read by vllm"),
    ("{engine: acme, env: {VLLM_ROCM_USE_AITER: '1'}}", "3:32", "with acme it is never set"),
    ("{engine: null, env: {VLLM_ROCM_USE_AITER: '1'}}", "3:32", "with no engine it is never set"),
    ("{engine: sglang, env: {SGLANG_USE_AITER_MOE_GU_ITLV: 'true'}}", "3:34", "is read as '1'"),
    ("{engine: sglang, env: {--disable-shared-experts-fusion: '7'}}", "3:34", "is never '7'; valid: 0, 1"),
    ("{arch: H200}", "3:12", "arch 'H200' is an NVIDIA GPU"),
    ("{arch: gfx951}", "3:12", "unknown arch 'gfx951'; valid: gfx942, gfx950"),
    ("{arch: [gfx950, MI35X]}", "3:12", "unknown arch 'MI35X'; valid: MI355X, MI350X, MI325X"),
    ("{model: /models/gpt-oss-120b/}", "3:12", f"is answered as one for {GPT_OSS!r}"),
    ("{activation: Swigluu}", "3:12", "valid: Silu"),
    ("{weight_dtype: mxfp4}", "3:12", "valid: "),
    ("{aiter: '>=0.1.14,<0.1.10'}", "3:12", "nothing lies in"),
    ("{model: null}", "3:12", ""),
]


@pytest.mark.parametrize(("when", "place", "message"), NEVER)
def test_a_rule_that_no_query_matches_does_not_load(tmp_path: Path, when: str, place: str, message: str) -> None:
    with pytest.raises(BookError) as caught:
        load_overlay(tmp_path, RULE.replace("{when}", when))
    assert any(f"overlay.yaml:{place}: " in line and message in line for line in str(caught.value).splitlines())


@pytest.mark.parametrize(
    ("when", "query"),
    [
        ("{model: acme/own}", {"model": "acme/own", "arch": "gfx950"}),
        ("{model: acme/*}", {"model": "acme/own", "arch": "gfx950"}),
        ("{model: gpt-oss-120b, tp: 3}", {"model": GPT_OSS, "arch": "gfx950", "tp": 3}),
        (f"{{model: {GPT_OSS}, tp: 3}}", {"model": "gpt-oss-120b", "arch": "gfx950", "tp": 3}),
        ("{model: [gpt-oss-120b, acme/own], tp: 3}", {"model": "/models/gpt-oss-120b", "arch": "gfx950", "tp": 3}),
        ("{engine: acme}", {"model": "m", "arch": "gfx950", "engine": "acme@1.0"}),
        ("{engine_version: '>=1.0', tp: 3}", {"model": "m", "arch": "gfx950", "engine": "acme@1.0", "tp": 3}),
        (
            "{engine: vllm, tp: 3, env: {ATOM_MOE_GU_ITLV: [null]}}",
            {"model": "m", "arch": "gfx950", "tp": 3, "engine": "vllm"},
        ),
        (
            "{num_experts: '>=8', top_k: 8, tp: 3}",
            {"model": "m", "arch": "gfx950", "tp": 3, "num_experts": 8, "top_k": 8},
        ),
        ("{tp: '>4095'}", {"model": "m", "arch": "gfx950", "tp": 4096}),
        ("{deployment: mine}", {"model": "m", "arch": "gfx950", "deployment": "mine"}),
    ],
)
def test_a_rule_on_names_of_the_users_own_loads_and_matches(
    tmp_path: Path, when: str, query: dict[str, object]
) -> None:
    registry = load_overlay(tmp_path, RULE.replace("{when}", when).replace("use: null", "use: null\n    priority: 99"))
    traces = {trace.rule: trace for trace in registry.explain(Query.parse(query)).rules}
    assert not traces["r1"].missed


@pytest.mark.parametrize(
    ("arch", "queries", "others"),
    [
        ("MI355X", [{"arch": "gfx950"}, {"arch": "MI350X"}, {"arch": "gfx950:sramecc+:xnack-"}], [{"arch": "gfx942"}]),
        ("gfx950:sramecc+:xnack-", [{"arch": "gfx950"}, {"arch": "MI355X"}], [{"arch": "MI300X"}]),
        (
            "MI300X",
            [
                {"arch": "MI300X"},
                {"arch": "MI325X"},
                {"arch": "gfx942"},
                {"arch": "gfx942", "cu_num": 304},
                {"arch": "MI300X", "cu_num": 38},
            ],
            [{"arch": "MI308X"}, {"arch": "gfx942", "cu_num": 80}, {"arch": "MI355X"}],
        ),
        ("[MI308X, gfx950]", [{"arch": "MI308X"}, {"arch": "MI355X"}, {"arch": "gfx950"}], [{"arch": "MI300X"}]),
        ("[mi300x, gfx942]", [{"arch": "MI308X"}, {"arch": "MI300X"}], [{"arch": "gfx950"}]),
        ("R9700", [{"arch": "gfx1201"}, {"arch": "RX 9070"}], [{"arch": "gfx1200"}]),
    ],
)
def test_a_rule_names_a_gpu_in_any_way(
    tmp_path: Path, arch: str, queries: list[dict[str, object]], others: list[dict[str, object]]
) -> None:
    registry = load_overlay(tmp_path, RULE.replace("{when}", f"{{model: acme/own, tp: 1, arch: {arch}}}"))
    for query, matches in [*((query, True) for query in queries), *((query, False) for query in others)]:
        traces = registry.explain(Query.parse({"model": "acme/own", **query})).rules
        assert next(not trace.missed for trace in traces if trace.rule == "r1") == matches, query


KNOWN_BAD = """known_bad:
  mine:
    when: {model: gpt-oss-120b, arch: MI355X}
    effect: wrong
    says: a test
    workaround: none
    evidence: [https://example.org]
"""


@pytest.mark.parametrize("model", [GPT_OSS, "gpt-oss-120b", "/models/gpt-oss-120b"])
@pytest.mark.parametrize("arch", ["gfx950", "MI355X", "gfx950:sramecc+:xnack-"])
def test_known_problems_name_models_and_gpus_in_any_way(tmp_path: Path, model: str, arch: str) -> None:
    registry = load_overlay(tmp_path, KNOWN_BAD)
    decision = registry.resolve(Query.parse({"model": model, "arch": arch, "tokens": [1]}))
    assert any(finding.message.startswith("a test: ") for finding in decision.findings)


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("MI355X", "H200", "3:33", "arch 'H200' is an NVIDIA GPU"),
        ("MI355X", "[gfx950, gfx955]", "3:33", "unknown arch 'gfx955'; valid: gfx942, gfx950"),
        ("arch: MI355X", "activation: Swigluu", "3:33", "activation is never 'Swigluu'; did you mean Swiglu"),
        ("arch: MI355X", "runs_in: fp4", "3:33", "runs_in is never 'fp4'; did you mean fp4x2"),
        (
            "arch: MI355X",
            "gate_mode: interleaved",
            "3:33",
            "gate_mode is never 'interleaved'; did you mean interleave",
        ),
        ("arch: MI355X", "w13_layout: sep61", "3:33", "w13_layout is never 'sep61'; did you mean sep16"),
        (
            "arch: MI355X",
            "env.ATOM_MOE_GU_ITVL: '1'",
            "3:33",
            "unknown switch 'ATOM_MOE_GU_ITVL'; did you mean ATOM_MOE_GU_ITLV",
        ),
    ],
)
def test_a_known_problem_that_never_holds_does_not_load(
    tmp_path: Path, old: str, new: str, place: str, message: str
) -> None:
    with pytest.raises(BookError, match=rf"overlay\.yaml:{place}: ") as caught:
        load_overlay(tmp_path, KNOWN_BAD.replace(old, new))
    assert message in str(caught.value)


def test_packaged_conditions_can_hold() -> None:
    assert list(condition_problems(BOOK, packaged=True)) == []


SIZES = """rules:
  r1:
    when: {engine: atom, arch: gfx950, weight_dtype: fp8, quant_type: per_1x128, deployment: mine, WHAT}
    use: atom.fp8-block.sep16
    because: a test
"""


@pytest.mark.parametrize(
    ("what", "lacks"),
    [
        ("hidden_size: 2880", "needs hidden_size at tp 1 in multiples of 128, found 2880"),
        ("intermediate_size: 768, tp: 4", "needs intermediate_size at tp 4 in multiples of 128, found 192"),
        ("intermediate_size: 768, tp: [4, 2]", None),
        ("intermediate_size: 768", None),
        ("intermediate_size: 192, tp: '>=1'", None),
        ("hidden_size: 4096", None),
    ],
)
def test_a_rule_on_sizes_that_its_recipe_cannot_take_does_not_load(
    tmp_path: Path, what: str, lacks: str | None
) -> None:
    text = SIZES.replace("WHAT", what)
    if lacks is None:
        assert "r1" in load_overlay(tmp_path, text).book.rules
        return
    with pytest.raises(BookError) as caught:
        load_overlay(tmp_path, text)
    assert f"overlay.yaml:4:5: rule 'r1' never wins: recipe atom.fp8-block.sep16 {lacks}" in str(caught.value)

"""Environment switches: who reads one, what it is worth unset, and what nobody reads."""

import pytest

from preshuffle.registry import Query, QueryError
from preshuffle.registry.layer.switches import misspelled_switch, read_switches
from support.book.strategies import BOOK, GPT_OSS, decide

SWITCH = "GPTOSS_USE_GENERIC_SWIGLU_MXFP4_LAYOUT"
ENGINES = ["atom", "vllm", "sglang"]


def codes(*, engine: str | None = None, **env: str) -> list[str]:
    return [finding.code for finding in decide(engine=engine, env=env, tokens=[1]).findings]


@pytest.mark.parametrize(
    ("activation_dtype", "value", "recipe"),
    [
        ("bf16", None, "mxfp4.gui16"),
        ("bf16", "0", "mxfp4.gui16"),
        ("bf16", "1", "mxfp4.sep16"),
        ("fp4x2", None, "mxfp4.sep16"),
        ("fp4x2", "0", "mxfp4.sep16"),
        ("fp4x2", "1", "mxfp4.sep16"),
    ],
)
@pytest.mark.parametrize("model", ["openai/gpt-oss-120b", "openai/gpt-oss-20b"])
def test_the_generic_layout_switch(model: str, activation_dtype: str, value: str | None, recipe: str) -> None:
    decision = decide(model=model, activation_dtype=activation_dtype, env={SWITCH: value} if value else {})
    assert decision.recipe == recipe
    assert (f"{SWITCH}={value}" in decision.reason) == (value is not None)
    assert ("decided" in decision.reason) == (value == "1" and activation_dtype == "bf16")
    assert not [finding for finding in decision.findings if finding.code.startswith("flag")]


@pytest.mark.parametrize("value", ["2", "", " 1", "true", "01", "\u0661"])
def test_any_other_value_of_the_switch_is_an_error(value: str) -> None:
    with pytest.raises(QueryError) as caught:
        decide(env={SWITCH: value})
    (problem,) = caught.value.problems
    assert problem.field == f"env.{SWITCH}"
    assert str(problem).startswith(f"env.{SWITCH}: {value!r} has no meaning; valid: 0 (legacy layout")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("value", ["0", "1", "2", ""])
def test_no_released_engine_reads_the_switch(engine: str, value: str) -> None:
    plain = decide(engine=engine)
    asked = decide(engine=engine, env={SWITCH: value})
    (finding,) = [finding for finding in asked.findings if finding.code == "flag_unknown"]
    assert finding.severity == "warning"
    assert finding.message.startswith(f"{SWITCH}={value} changes nothing: ")
    assert (finding.actual, finding.fix) == (value, f"unset {SWITCH}")
    assert (asked.decision_digest, asked.reason) == (plain.decision_digest, plain.reason)


@pytest.mark.parametrize(
    ("engine", "name", "recipes"),
    [
        ("atom", "ATOM_MOE_GU_ITLV", {None: "atom.mxfp4.sep16", "0": "atom.mxfp4.sep16", "1": "atom.mxfp4.gui16"}),
        (
            "sglang",
            "SGLANG_USE_AITER_MOE_GU_ITLV",
            {None: "sglang.mxfp4.gui16", "1": "sglang.mxfp4.gui16", "0": "sglang.mxfp4.sep16"},
        ),
    ],
)
def test_an_engines_own_switch_decides_for_it_and_for_no_other(
    engine: str, name: str, recipes: dict[str | None, str]
) -> None:
    for value, recipe in recipes.items():
        decision = decide(engine=engine, env={name: value} if value else {})
        assert decision.recipe == recipe
        assert (f"{name}={value}" in decision.reason) == (value is not None)
    for other in {*ENGINES, None} - {engine}:
        assert ("flag_unknown" in codes(engine=other, **{name: "1"})) == (other not in BOOK.flags[name].also)


def test_a_switch_that_contradicts_the_recipe_is_a_conflict() -> None:
    assert "flag_conflict" in codes(engine="vllm", VLLM_ROCM_USE_AITER="0")
    assert "flag_conflict" not in codes(engine="vllm", VLLM_ROCM_USE_AITER="1")
    assert "flag_conflict" not in codes(engine="vllm")


def test_a_bound_that_only_moves_numerics_is_judged_by_what_runs() -> None:
    decision = decide(env={"AITER_BF16_FP8_MOE_BOUND": "0"})
    assert [finding.code for finding in decision.findings] == ["numerics_deviation"]
    assert decision.env == {"AITER_BF16_FP8_MOE_BOUND": "2147483647"}
    assert {bucket.activation_dtype for bucket in decision.kernels} == {"fp8"}


def test_an_aiter_that_does_not_read_a_switch_yet_is_named() -> None:
    switches = read_switches(
        Query.parse({**GPT_OSS, "aiter": "0.1.13", "env": {"AITER_BF16_FP8_MOE_BOUND": "1"}}), BOOK
    )
    (finding,) = switches.findings
    assert "aiter 0.1.13 does not read it yet; 0.1.14 is the first" in finding.message
    assert "AITER_BF16_FP8_MOE_BOUND" not in switches.values


def test_a_switch_that_the_book_does_not_know_is_left_alone() -> None:
    assert decide(env={"PATH": "/bin", "": "", "\x00": "x"}).findings == decide().findings


def test_defaults_count_and_a_switch_of_another_engine_does_not() -> None:
    switches = read_switches(Query.parse({**GPT_OSS, "engine": "sglang"}), BOOK)
    assert switches.values["SGLANG_USE_AITER_MOE_GU_ITLV"] == "1"
    assert "ATOM_MOE_GU_ITLV" not in switches.values
    assert (switches.honoured, switches.findings) == ({}, ())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ATOM_MOE_GU_ITVL", "ATOM_MOE_GU_ITLV"),
        ("ATOM_MOE_GUITLV", "ATOM_MOE_GU_ITLV"),
        ("SGLANG_USE__AITER", "SGLANG_USE_AITER"),
        ("VLLM_ROCM_USE_AITER_M0E", "VLLM_ROCM_USE_AITER_MOE"),
        ("vllm_rocm_use_aiter", "VLLM_ROCM_USE_AITER"),
        ("AITER_KSPLI", "AITER_KSPLIT"),
        ("AITER_SITUV2_A8W8", None),
        ("ATOM_MORI_V3", None),
        ("VLLM_ROCM_USE_AITER_MLA", None),
        ("CPU_NUM", None),
        ("GPU_ARCH", None),
        ("ATOM_MOE_GU_ITLV", None),
    ],
)
def test_a_typing_error_names_the_switch_that_was_meant(name: str, meant: str | None) -> None:
    others = [flag for flag in BOOK.flags if flag != name] if meant is None else BOOK.flags
    assert misspelled_switch(name, others) == meant


def test_a_typing_error_is_told_and_a_foreign_switch_is_not() -> None:
    findings = decide(env={"ATOM_MOE_GU_ITVL": "1", "MY_SWITCH_OF_MY_OWN": "1"}, engine="atom", tokens=[1]).findings
    assert [finding.code for finding in findings if finding.code == "flag_unknown"] == ["flag_unknown"]
    assert any("ATOM_MOE_GU_ITLV of atom" in finding.message for finding in findings)

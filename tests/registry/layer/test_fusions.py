"""What ATOM, vLLM and SGLang make of shared experts, as their code says."""

from typing import Any

import pytest

from preshuffle.registry import NoRecipeError, Observation, Query
from preshuffle.registry.layer import Slots, expert_slots, layer_of, read_switches, shared_experts_of
from support.book.fusion_rows import (
    AITER,
    ATOM,
    ENFORCE,
    FHMOE,
    FUSE,
    K2_INT4,
    M3,
    OFF,
    Q35_FP4,
    Q35_FP8,
    R1,
    SGLANG,
    V4_FP8,
    V4_PRO,
    VLLM,
    VLLM_ROWS,
    Row,
)
from support.book.strategies import BOOK, REGISTRY


def query_of(engine: str | None, model: str, given: dict[str, Any]) -> Query:
    return Query.parse({"arch": "gfx950", **given, "model": model, "engine": engine})


def slots_of(engine: str | None, model: str, **given: Any) -> Slots:
    return layer_of(query_of(engine, model, given), BOOK).slots


@pytest.mark.parametrize("case", [*ATOM, *VLLM_ROWS, *SGLANG])
def test_an_engine_fuses_shared_experts_as_its_code_says(case: Row) -> None:
    opened = layer_of(query_of(case.engine, case.model, case.given), BOOK)
    ep = opened.query.ep
    assert (opened.query.num_experts or 0) // ep == case.local
    assert (opened.query.top_k or 0) + opened.masked_column == case.columns
    assert opened.slots.table == case.table


def test_the_table_is_long_enough() -> None:
    assert len(ATOM) + len(VLLM_ROWS) + len(SGLANG) >= 80


@pytest.mark.parametrize(
    ("engine", "model", "given", "text"),
    [
        ("atom", R1, {}, "1 shared expert counts among the experts: ATOM fuses shared experts of the routed experts'"),
        (
            "atom",
            Q35_FP4,
            {},
            "1 shared expert of bf16 stays apart from the fp4x2 experts: ATOM fuses shared experts only where",
        ),
        (
            "vllm",
            R1,
            {},
            "1 shared expert stays apart: vLLM fuses shared experts only where VLLM_ROCM_USE_AITER_FUSION",
        ),
        ("sglang", R1, {}, "all_to_all is not given and read as none"),
        ("vllm", V4_PRO, {"tp": 8, "env": FHMOE}, "it would be heterogeneous with AITER's heterogeneous_dsv4"),
        ("vllm", V4_PRO, {"tp": 8, "env": FHMOE, "aiter": "0.1.24"}, "dp is not given and read as 1"),
        ("vllm", V4_PRO, {"tp": 8, "env": FHMOE, "aiter": "0.1.24"}, "its kernels come from tuned_fhmoe.csv"),
    ],
)
def test_the_answer_says_why(engine: str, model: str, given: dict[str, Any], text: str) -> None:
    assert text in slots_of(engine, model, **given).reason


def test_what_is_given_is_not_said_to_be_assumed() -> None:
    assert "not given" not in slots_of("sglang", R1, all_to_all="none").reason
    assert "not given" not in slots_of("sglang", R1, env={"--moe-a2a-backend": "none"}).reason
    assert "dp is not given" not in slots_of("vllm", V4_FP8, dp=1, env=VLLM).reason


@pytest.mark.parametrize(
    ("engine", "model", "given", "code"),
    [
        ("vllm", V4_PRO, {"dp": 8, "tp": 1, "env": VLLM}, "unsupported"),
        ("vllm", V4_PRO, {"dp": 8, "tp": 1, "env": {"VLLM_ROCM_USE_AITER": "1"}}, None),
        ("vllm@0.30.0", V4_PRO, {"dp": 8, "tp": 1, "env": VLLM}, None),
        ("vllm@0.28.0", K2_INT4, {"tp": 8, "env": VLLM}, "known_bad"),
        ("vllm@0.29.0", K2_INT4, {"tp": 8, "env": VLLM}, None),
        ("vllm@0.28.0", M3, {"tp": 8, "env": {FUSE: "1"}}, "known_bad"),
        ("vllm@0.28.0", M3, {"tp": 8, "env": {**VLLM, "--moe-backend": "triton"}}, "known_bad"),
        ("vllm@0.28.0", M3, {"tp": 8, "env": VLLM}, None),
        ("vllm@0.29.0", M3, {"tp": 8, "env": {FUSE: "1"}}, None),
        ("vllm", V4_PRO, {"dp": 8, "ep": 8, "env": VLLM}, None),  # expert parallelism: not fused, not refused
        ("vllm", R1, {"dp": 8, "env": VLLM}, None),
        ("vllm", R1, {"dp": 8, "ep": 8, "all_to_all": "mori_low_latency", "env": VLLM}, "unsupported"),
        ("vllm", R1, {"dp": 8, "ep": 8, "all_to_all": "deepep_v2", "env": VLLM}, None),
        ("sglang@0.5.12", Q35_FP8, {"tp": 4, "ep": 4, "env": AITER}, "known_bad"),
        ("sglang@0.5.13", Q35_FP8, {"tp": 4, "ep": 4, "env": AITER}, None),
        ("sglang@0.5.10", Q35_FP8, {"tp": 4, "ep": 4, "env": AITER}, None),
        ("sglang@0.5.18", V4_PRO, {"tp": 8, "ep": 8, "env": ENFORCE}, "known_bad"),
        ("sglang@0.5.19", V4_PRO, {"tp": 8, "ep": 8, "env": ENFORCE}, None),
        ("sglang@0.5.12", Q35_FP8, {"tp": 4, "env": AITER}, None),
        ("sglang@0.5.12", Q35_FP8, {"tp": 4, "ep": 4, "env": {**AITER, **OFF}}, None),
        ("sglang@0.5.12", R1, {"tp": 4, "ep": 4, "env": AITER}, None),
    ],
)
def test_what_stops_or_spoils_fusion_is_found(engine: str, model: str, given: dict[str, Any], code: str | None) -> None:
    findings = slots_of(engine, model, **given).findings
    assert [finding.code for finding in findings] == ([code] if code else [])
    assert all(finding.fix and finding.evidence for finding in findings)


@pytest.mark.parametrize("engine", [None, "tgi"])
def test_an_engine_that_no_entry_names_leaves_it_open(engine: str | None) -> None:
    slots = slots_of(engine, R1, ep=4)
    assert (slots.outcome, slots.masked_column, slots.num_experts, slots.top_k) == (None, None, 256, 8)


@pytest.mark.parametrize(
    ("engine", "num_experts", "outcome", "masked"),
    [
        ("atom", 256, "apart", False),
        ("atom", 260, "fused", True),  # 4 ranks with a slot each
        ("atom", 300, "apart", False),
        ("vllm", 260, "apart", False),  # without the switch nothing is appended
        ("sglang", 260, "fused", False),
    ],
)
def test_numbers_that_the_query_gives_are_what_the_layer_holds(
    engine: str, num_experts: int, outcome: str, masked: bool
) -> None:
    slots = slots_of(engine, R1, ep=4, num_experts=num_experts, top_k=9)
    assert (slots.num_experts, slots.top_k) == (num_experts, 9)
    assert (slots.outcome, slots.masked_column) == (outcome, masked)


def test_a_model_that_no_entry_knows_leaves_the_column_open() -> None:
    assert slots_of("atom", "acme/unknown", ep=4, num_experts=64, top_k=4).masked_column is None
    assert slots_of("sglang", "acme/unknown", ep=4, num_experts=64, top_k=4).masked_column is False


def test_an_observation_concludes_no_fault_from_what_it_leaves_out() -> None:
    query = query_of("vllm", V4_PRO, {"dp": 8, "env": VLLM})
    shared, switches = shared_experts_of(BOOK.model_names.find(V4_PRO)), read_switches(query, BOOK)
    for observed, found in ((frozenset({"dp"}), 0), (frozenset({"dp", "ep"}), 1)):
        full = query.altered(weight_dtype="fp4x2", num_experts=384, top_k=6)
        slots = expert_slots(full, shared, switches, BOOK, given=False, observed=observed)
        assert len(slots.findings) == found


@pytest.mark.parametrize(
    ("engine", "model", "given", "experts", "found"),
    [
        ("atom", V4_PRO, {"tp": 8, "ep": 1}, 385, True),
        ("atom", V4_PRO, {"tp": 8, "ep": 1}, 384, False),
        ("vllm", V4_PRO, {"tp": 8, "ep": 1, "env": VLLM}, 385, True),  # --moe-backend is auto: never heterogeneous
        ("vllm", V4_PRO, {"tp": 8, "ep": 1, "env": FHMOE}, 385, False),  # AITER's version is not known
        ("vllm", V4_PRO, {"tp": 8, "ep": 1, "env": FHMOE, "aiter": "0.1.24"}, 385, False),
        ("vllm", V4_PRO, {"tp": 8, "ep": 1, "env": FHMOE, "aiter": "0.1.20.post1"}, 385, True),
        ("sglang", V4_PRO, {"tp": 8, "ep": 1}, 385, True),
        ("sglang", V4_PRO, {"tp": 8, "ep": 1, "env": ENFORCE}, 385, False),
        ("sglang", Q35_FP4, {"tp": 4, "ep": 1, "env": AITER}, 513, True),
        ("sglang", Q35_FP4, {"tp": 4, "ep": 1, "env": {**AITER, **ENFORCE}}, 513, False),
        (None, Q35_FP4, {"tp": 4, "ep": 1}, 513, True),
        (None, Q35_FP4, {"tp": 4, "ep": 1, "num_experts": 512, "top_k": 10}, 513, True),
        (None, Q35_FP8, {"tp": 4, "ep": 1}, 513, False),
        ("atom", K2_INT4, {"tp": 8, "ep": 8}, 49, True),
        ("atom", R1, {"ep": 8}, 33, False),
    ],
)
def test_a_slot_for_a_shared_expert_of_another_quantization_is_a_finding(
    engine: str | None, model: str, given: dict[str, Any], experts: int, found: bool
) -> None:
    query = {"model": model, "arch": "gfx950", "engine": engine, **given}
    tensors = {"w13_weight": {"layout": "sep16", "logical_shape": [experts, 64, 64]}}
    report = REGISTRY.check(Observation.parse({"query": query, "applied": {"tensors": tensors}}))
    said = [finding.message for finding in report.findings if finding.code == "contract_mismatch"]
    assert bool(said) is found
    assert all("must stay apart from" in text for text in said)


def test_kernels_of_a_table_that_is_not_read_are_unknown_and_said_so() -> None:
    query = query_of("vllm", V4_PRO, {"tp": 8, "aiter": "0.1.24", "env": FHMOE})
    decision = REGISTRY.resolve(query)
    assert decision.kernels == ()
    assert "its kernels come from tuned_fhmoe.csv" in decision.reason
    with pytest.raises(NoRecipeError, match="whose rows are not known here"):
        REGISTRY.predict(query, 64)
    shapes = {"w13_weight": ([385, 768, 7168], "gui16"), "w2_weight": ([385, 7168, 384], "sep16")}
    tensors = {
        role: {"layout": layout, "is_shuffled": True, "dtype": "fp4x2", "logical_shape": shape, "physical_shape": shape}
        for role, (shape, layout) in shapes.items()
    }
    applied = {"gate_mode": "interleave", "tensors": tensors}
    report = REGISTRY.check(Observation.parse({"query": query.model_dump(exclude_unset=True), "applied": applied}))
    assert report.verdict == "unknown"
    assert report.notes[-1].startswith("kernels come from tuned_fhmoe.csv, whose rows are not known here: 1 shared")
    apart = REGISTRY.resolve(query_of("vllm", V4_PRO, {"tp": 8, "aiter": "0.1.20.post1", "env": FHMOE}))
    assert apart.kernels


def test_a_fault_is_found_by_resolve_and_by_check() -> None:
    query = query_of("sglang@0.5.12", Q35_FP8, {"tp": 4, "ep": 4, "env": AITER})
    (resolved,) = [one for one in REGISTRY.resolve(query).findings if "counts ep times" in one.message]
    (checked,) = [
        one
        for one in REGISTRY.check(Observation.parse({"query": query.model_dump(exclude_unset=True)})).findings
        if "counts ep times" in one.message
    ]
    assert resolved == checked


@pytest.mark.parametrize("model", [id for id, model in BOOK.models.items() if model.shared_experts])
def test_a_model_with_shared_experts_names_its_model_type(model: str) -> None:
    assert BOOK.models[model].model_type in BOOK.model_types

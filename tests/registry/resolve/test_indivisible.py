"""Ranks that do not divide the experts: refused where the engine asserts it, of `resolve` and of `check` alike."""

from typing import Any

import pytest

from preshuffle.registry import Decision, NoRecipeError, Observation, Query, QueryError
from support.book.strategies import BOOK, REGISTRY

ENGINES = ("vllm", "sglang", "atom")
ON = {"vllm": {"VLLM_ROCM_USE_AITER": "1"}, "sglang": {"SGLANG_USE_AITER": "1"}, "atom": {}}
READ = {
    "vllm": ["0.17.0", "0.23.0", "0.24.0", "0.30.0", "0.31.0", "0.32.0", "0.33.0"],
    "sglang": ["0.5.9", "0.5.13", "0.5.19", "0.5.23"],
    "atom": ["0.1.3", "0.1.4", "0.1.5", "0.1.6rc0", "0.1.6rc1.dev323"],
}
"""Releases whose code has the assertion; in vLLM 0.24.0 it moved to another file."""
MODELS = (
    "openai/gpt-oss-120b",  # MXFP4, which vLLM and ATOM pad per rank
    "amd/Qwen3-235B-A22B-Instruct-2507-MXFP4",
    "deepseek-ai/DeepSeek-R1",  # fp8 by block, which SGLang cuts in whole blocks
    "Qwen/Qwen3-235B-A22B",
    "moonshotai/Kimi-K3",
)


def query(engine: str | None, **fields: Any) -> Query:
    """Build a query on gfx950, with AITER switched on."""
    name = (engine or "").partition("@")[0]
    return Query.parse({"arch": "gfx950", "engine": engine, "env": ON.get(name, {})} | fields)


def resolved(engine: str | None, **fields: Any) -> Decision:
    return REGISTRY.resolve(query(engine, **fields))


def contract_holds(engine: str | None, applied: dict[str, Any] | None = None, **fields: Any) -> bool:
    """Whether `check` says that the ranks do not divide."""
    asked = query(engine, **fields).model_dump(mode="json", exclude_unset=True)
    report = REGISTRY.check(Observation.parse({"query": asked, "applied": applied or {}}))
    found = [finding for finding in report.findings if "asserts that tp divides" in finding.message]
    assert not found or report.verdict == "unsupported"
    return bool(found)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("engine", ENGINES)
def test_every_quantization_is_refused_with_the_sizes(engine: str, model: str) -> None:
    entry, tp = BOOK.model_names.find(model), 7
    size = entry.intermediate_size if entry else None
    text = rf"asserts that tp divides.*found intermediate_size {size}, tp 7"
    with pytest.raises(NoRecipeError, match=text) as caught:
        resolved(engine, model=model, tp=tp)
    assert caught.value.evidence == BOOK.entries["contracts"][f"{engine}.indivisible"].evidence
    assert contract_holds(engine, model=model, tp=tp)


@pytest.mark.parametrize("engine", [f"{name}@{version}" for name, versions in READ.items() for version in versions])
def test_every_release_that_was_read_refuses(engine: str) -> None:
    with pytest.raises(NoRecipeError, match="asserts that tp divides") as caught:
        resolved(engine, model="openai/gpt-oss-120b", tp=7)
    assert "is not known" not in str(caught.value)
    assert contract_holds(engine, model="openai/gpt-oss-120b", tp=7)


@pytest.mark.parametrize(
    ("engine", "note"),
    [
        ("vllm@0.16.0", "vllm 0.16.0 is answered as vllm 0.17.0: what it does before 0.17.0 is not known"),
        ("sglang@0.5.8", "sglang 0.5.8 is answered as sglang 0.5.9: what it does before 0.5.9 is not known"),
        ("atom@0.1.1", "atom 0.1.1 is answered as atom 0.1.3: what it does before 0.1.3 is not known"),
        ("vllm@99.0", "vllm 99.0 is answered as vllm 0.33.0, the newest known"),
        ("vllm", "no vllm version given: answered as vllm 0.33.0, the newest known"),
    ],
)
def test_a_release_that_was_not_read_is_said_to_be_unknown(engine: str, note: str) -> None:
    with pytest.raises(NoRecipeError) as caught:
        resolved(engine, model="openai/gpt-oss-120b", tp=7)
    assert note in str(caught.value)
    asked = query(engine, model="openai/gpt-oss-120b", tp=7).model_dump(mode="json", exclude_unset=True)
    assert note in REGISTRY.check(Observation.parse({"query": asked, "applied": {}})).notes


@pytest.mark.parametrize("tp", [1, 2, 3, 4, 5, 6, 8, 9, 10])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_share_that_is_no_whole_groups_is_not_refused(engine: str, tp: int) -> None:
    """These divide gpt-oss's 2880 values, most of them not its 90 groups of 32."""
    assert resolved(engine, model="openai/gpt-oss-120b", tp=tp).tensors
    assert not contract_holds(engine, model="openai/gpt-oss-120b", tp=tp)


@pytest.mark.parametrize("tp", [7, 13])
def test_without_an_engine_nothing_asserts_it(tp: int) -> None:
    assert resolved(None, model="openai/gpt-oss-120b", tp=tp).recipe == "mxfp4.gui16"
    assert not contract_holds(None, model="openai/gpt-oss-120b", tp=tp)


@pytest.mark.parametrize(("engine", "cuts"), [("vllm", False), ("atom", False), ("sglang", True)])
def test_expert_parallel_ranks_of_vllm_and_atom_hold_whole_experts(engine: str, cuts: bool) -> None:
    fields: dict[str, Any] = {"model": "openai/gpt-oss-120b", "tp": 7, "ep": 2}
    assert contract_holds(engine, **fields) is cuts
    if cuts:
        with pytest.raises(NoRecipeError, match="asserts that tp divides"):
            resolved(engine, **fields)
    else:
        assert resolved(engine, **fields).tensors


@pytest.mark.parametrize(("engine", "whole"), [("vllm", True), ("atom", True), ("sglang", False), (None, False)])
def test_tp_beside_ep_cuts_no_expert_where_ranks_hold_whole_experts(engine: str | None, whole: bool) -> None:
    """TP8EP8 of vLLM is expert parallelism alone; SGLang cuts each of its experts, and so does who names no engine."""
    fields: dict[str, Any] = {"model": "MiniMaxAI/MiniMax-M2.5", "ep": 8}
    alone, both = resolved(engine, **fields), resolved(engine, **fields, tp=2)
    assert (alone.tensors == both.tensors) is whole
    assert ("cuts no expert: tp 2 counts as 1" in both.reason) is whole


def test_a_loader_is_not_told_of_ranks_that_cut_nothing() -> None:
    query = Query.parse({"model": "MiniMaxAI/MiniMax-M2.5", "arch": "gfx950", "engine": "vllm", "tp": 8, "ep": 8})
    with pytest.raises(QueryError, match="tp: 8 beside ep 8: ranks of vllm hold whole experts then; valid: 1"):
        REGISTRY.loader_cut(query)


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_concluded_from_ranks_or_sizes_that_are_not_stated(engine: str) -> None:
    assert not contract_holds(engine, model="openai/gpt-oss-120b")
    assert not contract_holds(engine, model="acme/unknown", tp=7)
    assert contract_holds(engine, model="acme/unknown", tp=7, intermediate_size=2048)


def test_other_kernels_do_not_lift_it() -> None:
    observed: list[dict[str, Any]] = [{"kernels": [{"backend": "triton"}]}, {"gate_mode": "separated"}]
    assert all(contract_holds("vllm", applied, model="openai/gpt-oss-120b", tp=7) for applied in observed)

"""One layer, one answer: `check` finds in a followed decision exactly what `resolve` told, and asks AITER the same."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from itertools import cycle, product
from typing import Any

import pytest

from preshuffle.registry import Decision, LayoutError, NoRecipeError, Query, QueryError, Registry, observation_of
from preshuffle.registry.kernels import DispatchCall, KernelTables
from support.aiter.aiter_wheel import WheelNotFoundError, wheel_root
from support.book.strategies import BOOK, REGISTRY

ENGINES = (None, "atom", "vllm@0.33.0", "sglang@0.5.23")
RANKS = ((1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (1, 4), (1, 8), (8, 8))
TOKENS: tuple[tuple[int, ...] | None, ...] = (None, (1,), (64,), (300, 5000))
ARCHS = [entry.id for entry in BOOK.archs.values() if not entry.no_fused_moe]
Key = tuple[str, str | None, str]


def wheel_tables() -> KernelTables | None:
    """Return the tables of AMD's wheel; None where it is not installed."""
    try:
        return KernelTables.load([wheel_root() / "aiter" / "configs"])
    except WheelNotFoundError:
        return None


def registries() -> Iterator[Registry]:
    yield REGISTRY
    tables = wheel_tables()
    if tables is not None:
        yield Registry(BOOK, tables)


def sampled() -> Iterator[dict[str, Any]]:
    """Every model, GPU and engine of the book, with one pair of ranks and one set of token counts each."""
    ranks, tokens = cycle(RANKS), cycle(TOKENS)
    for model, arch, engine in product(BOOK.models, ARCHS, ENGINES):
        (tp, ep), counts = next(ranks), next(tokens)
        fields = {"model": model, "arch": arch, "tp": tp, "ep": ep, "engine": engine, "tokens": counts}
        yield {name: value for name, value in fields.items() if value is not None}


def whole() -> Iterator[dict[str, Any]]:
    """Every model, GPU, engine, pair of ranks and set of token counts of the book."""
    for model, arch, engine, (tp, ep), counts in product(BOOK.models, ARCHS, ENGINES, RANKS, TOKENS):
        fields = {"model": model, "arch": arch, "tp": tp, "ep": ep, "engine": engine, "tokens": counts}
        yield {name: value for name, value in fields.items() if value is not None}


def told(decision: Decision) -> set[Key]:
    """Return what a decision tells by code, role and severity; an untuned kernel counts as the finding."""
    found: set[Key] = {(finding.code, finding.role, finding.severity) for finding in decision.findings}
    if any(bucket.tuned is False for bucket in decision.kernels):
        found.add(("untuned", None, "warning"))
    return found


def compare(registry: Registry, fields: dict[str, Any]) -> bool:
    """Compare the two answers to a query; False where there is no decision."""
    query = Query.parse(fields)
    try:
        decision = registry.resolve(query, nearest=False)
    except (NoRecipeError, QueryError, LayoutError):
        return False
    report = registry.check(observation_of(decision, query))
    found = {(finding.code, finding.role, finding.severity) for finding in report.findings}
    assert found == told(decision), (fields, decision.recipe)
    return True


SWITCHED: dict[str, dict[str, Any]] = {
    "removed, the version left open": {"engine": "vllm", "env": {"VLLM_ROCM_USE_AITER_FUSED_MOE_A16W4": "1"}},
    "removed": {"engine": "vllm@0.33.0", "env": {"VLLM_ROCM_USE_AITER_FUSED_MOE_A16W4": "1"}},
    "removed from AITER, the version left open": {"env": {"AITER_USE_OPUS_MOE_SORTING": "1"}},
    "read later": {"aiter": "0.1.15", "env": {"AITER_FLYDSL_FORCE": "0"}},
    "read later, and off": {
        "model": "moonshotai/Kimi-K3",
        "engine": "sglang",
        "aiter": "0.1.19",
        "activation_dtype": "bf16",
    },
    "the recipe's, read later": {"model": "moonshotai/Kimi-K3", "engine": "vllm", "aiter": "0.1.15"},
    "AITER's, against the recipe": {"arch": "gfx1250", "env": {"AITER_FORCE_A8W4": "0"}},
    "vLLM's, against the recipe": {"arch": "gfx1250", "engine": "vllm@0.33.0", "env": {"VLLM_ROCM_USE_AITER": "0"}},
}


@pytest.mark.parametrize("fields", SWITCHED.values(), ids=SWITCHED)
def test_switches_that_change_nothing_are_found_by_both(fields: dict[str, Any]) -> None:
    assert compare(REGISTRY, {"model": "openai/gpt-oss-120b", "arch": "gfx950", **fields})


def test_check_finds_what_resolve_told() -> None:
    for registry in registries():
        assert sum(compare(registry, fields) for fields in sampled()) > 300


@pytest.mark.slow
def test_check_finds_what_resolve_told_in_the_whole_book() -> None:
    for registry in registries():
        decided = sum(compare(registry, fields) for fields in whole())
        print(f"{decided} decisions, tables: {registry.tables is not None}")
        assert decided > 10_000


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[DispatchCall]:
    """Record every call that AITER's dispatch is asked for."""
    seen: list[DispatchCall] = []
    for name in ("dispatch.dispatch", "survey.buckets"):
        module = importlib.import_module(f"preshuffle.registry.kernels.{name}")
        original = module.open_call

        def recorded(call: DispatchCall, *rest: Any, original: Any = original) -> Any:
            seen.append(call)
            return original(call, *rest)

        monkeypatch.setattr(module, "open_call", recorded)
    return seen


def test_both_ask_the_dispatch_for_the_same_calls(calls: list[DispatchCall]) -> None:
    compared = 0
    for number, fields in enumerate(sampled()):
        if number % 5:
            continue
        query = Query.parse(fields)
        calls.clear()
        try:
            decision = Registry(BOOK).resolve(query, nearest=False)
        except (NoRecipeError, QueryError, LayoutError):
            continue
        asked = {call.model_dump_json() for call in calls}
        calls.clear()
        Registry(BOOK).check(observation_of(decision, query))
        assert {call.model_dump_json() for call in calls} == asked, fields
        compared += bool(asked)
    assert compared > 30


@pytest.mark.parametrize("tokens", [None, (1,), (300, 5000)])
def test_the_token_counts_that_are_stated_are_judged(tokens: tuple[int, ...] | None) -> None:
    """gpt-oss in fp8 below a bound: bf16 activations are wanted, and run up to 255 tokens only."""
    fields = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "bf16"}
    env = {"AITER_BF16_FP8_MOE_BOUND": "256"}
    query = Query.parse({**fields, "env": env} | ({"tokens": tokens} if tokens else {}))
    decision = REGISTRY.resolve(query)
    report = REGISTRY.check(observation_of(decision, query))
    assert any(f.code == "numerics_deviation" for f in report.findings) is (tokens != (1,))
    assert {f.code for f in report.findings} == {f.code for f in decision.findings}

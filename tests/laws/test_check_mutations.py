"""Every decision of the book, done right, is silent; with one thing broken it is found, with the right code."""

import random
from collections import defaultdict
from itertools import product

import pytest

from preshuffle.registry import Decision, NoRecipeError, Observation, Query, QueryError, Registry, observation_of
from support.book.mutations import KINDS, OTHER, broken

SEED = 20260822
AITER = "0.1.20"
ENGINES = (None, "atom", "vllm", "sglang")
SWITCHES: tuple[dict[str, str], ...] = (
    {},
    {"ATOM_MOE_GU_ITLV": "1"},
    {"SGLANG_USE_AITER_MOE_GU_ITLV": "0"},
    {"GPTOSS_USE_GENERIC_SWIGLU_MXFP4_LAYOUT": "1"},
)
OWNERS = {"ATOM": "atom", "SGLANG": "sglang", "GPTOSS": None}
Pair = tuple[Query, Decision]


def queries(registry: Registry) -> list[Query]:
    """Every model of the book that has sizes, at every TP, activation dtype, engine and switch of that engine."""
    models = [model.id for model in registry.book.models.values() if model.hidden_size]
    grid = product(models, (1, 2, 4, 8), ("bf16", "fp8", "fp4x2"), ENGINES, SWITCHES)
    return [
        Query.parse(
            {"model": model, "arch": "gfx950", "tp": tp, "ep": 1, "aiter": AITER, "activation_dtype": dtype, "env": env}
            | ({"engine": engine} if engine else {})
        )
        for model, tp, dtype, engine, env in grid
        if all(OWNERS[name.split("_")[0]] == engine for name in env)
        and (tp in (1, 8) or model.startswith("openai/"))
        # a switch for gpt-oss, which knows bf16 and fp4x2
        and not (any(name.startswith("GPTOSS") for name in env) and (dtype == "fp8" or not model.startswith("openai/")))
    ]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.default()


@pytest.fixture(scope="module")
def decisions(registry: Registry) -> list[Pair]:
    found = []
    for query in queries(registry):
        try:
            found.append((query, registry.resolve(query, nearest=False)))
        except (NoRecipeError, QueryError):  # nothing works there, or a dimension cannot be cut
            continue
    return found


def is_breakable(decision: Decision) -> bool:
    """Whether it is right, and of MX weights with biases in AITER's kernels, which the mutations are written for."""
    scale = decision.tensors.get("w13_weight_scale")
    if scale is None or decision.tensors["w13_weight"].layout not in OTHER or decision.call.function != "fused_moe":
        return False
    if "w13_bias" not in decision.tensors or any(finding.severity == "error" for finding in decision.findings):
        return False
    return scale.layout in ("e8", "e8_gui16") and len(scale.physical_shape) == 3


def raw_of(query: Query, decision: Decision) -> dict[str, dict[str, object]]:
    return observation_of(decision, query).model_dump(exclude_unset=True)


def test_the_book_decides_enough_to_be_broken(decisions: list[Pair]) -> None:
    assert len(decisions) >= 60
    assert {pair[1].tensors["w13_weight"].layout for pair in decisions} >= {"sep16", "gui16"}


def test_nothing_is_found_where_nothing_is_broken(registry: Registry, decisions: list[Pair]) -> None:
    for query, decision in decisions:
        report = registry.check(observation_of(decision, query))
        told = {finding.code for finding in decision.findings}
        found = {finding.code for finding in report.findings}
        assert found <= told, (query, report.findings)
        assert report.ok or report.findings, (query, report)


def test_there_are_more_than_twenty_kinds() -> None:
    assert len(KINDS) >= 20


def test_what_is_broken_is_found(registry: Registry, decisions: list[Pair]) -> None:
    chosen = random.Random(SEED)
    table: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    missed = []
    breakable = [pair for pair in decisions if is_breakable(pair[1])]
    for name in KINDS:
        for query, decision in chosen.sample(breakable, min(len(breakable), 40)):
            case = broken(name, raw_of(query, decision), decision, query, chosen)
            if case is None:
                continue
            raw, wanted = case
            codes = {finding.code for finding in registry.check(Observation.parse(raw)).findings}
            table[name][0] += 1
            table[name][1] += bool(codes & wanted)
            if not codes & wanted:
                missed.append((name, query, codes))
    print_table(table)
    assert all(table[name][0] for name in KINDS)
    assert len(missed) <= sum(count for count, _ in table.values()) // 100, missed[:3]


def print_table(table: dict[str, list[int]]) -> None:
    for name, (count, found) in table.items():
        print(f"{name:32} {found:4} of {count:4}")
    total, hits = (sum(column) for column in zip(*table.values(), strict=True))
    print(f"{'all':32} {hits:4} of {total:4}  {100 * hits / total:.2f} %")

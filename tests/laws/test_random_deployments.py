"""Random deployments of the whole book: a followed decision is ok or degraded, and one thing broken is found."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from preshuffle.registry import (
    Decision,
    LayoutError,
    NoRecipeError,
    Observation,
    Query,
    QueryError,
    Registry,
    observation_of,
)
from support.book.mutations import Raw
from support.book.strategies import BOOK, REGISTRY

SEED = 20261130
ARCHS = [entry.id for entry in BOOK.archs.values() if not entry.no_fused_moe]
ENGINES = (None, "atom", "vllm", "vllm@0.33.0", "sglang", "sglang@0.5.23")
VERSIONS = (None, None, "0.1.14", "0.1.16", "0.1.18", "0.1.19", "0.1.20", "0.1.20.post1")
CU_NUMS = (None, 304, 256, 80)


def environment(engine: str | None, draw: random.Random) -> dict[str, str]:
    """Return some switch that the engine or AITER reads, with one of its values."""
    owner = draw.choice(("aiter", (engine or "aiter").split("@")[0]))
    flags = [flag for flag in BOOK.flags.values() if flag.owner == owner and flag.values and flag.released]
    if not flags or draw.random() < 0.6:
        return {}
    flag = draw.choice(flags)
    return {flag.id: draw.choice(list(flag.values))}


def random_query(draw: random.Random) -> Query:
    engine, arch = draw.choice(ENGINES), draw.choice(ARCHS)
    tp, ep = draw.choice(((1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (1, 8), (8, 8), (4, 4), (16, 1)))
    fields: dict[str, Any] = {
        "model": draw.choice(list(BOOK.models)),
        "arch": arch,
        "engine": engine,
        "tp": tp,
        "ep": ep,
        "aiter": draw.choice(VERSIONS),
        "cu_num": draw.choice(CU_NUMS) if arch == "gfx942" else None,
        "env": environment(engine, draw),
        "tokens": draw.choice((None, (1,), (16, 512), (1, 64, 4096))),
    }
    return Query.parse({name: value for name, value in fields.items() if value is not None})


def decided(registry: Registry, number: int, seed: int) -> Iterator[tuple[Query, Decision]]:
    """Yield so many random queries that have a decision."""
    draw, found = random.Random(seed), 0
    while found < number:
        query = random_query(draw)
        try:
            decision = registry.resolve(query, nearest=False)
        except (NoRecipeError, QueryError, LayoutError):
            continue
        found += 1
        yield query, decision


def raw_of(query: Query, decision: Decision) -> Raw:
    return observation_of(decision, query).model_dump(exclude_unset=True)


def another_layout(raw: Raw, draw: random.Random) -> str | None:
    """Lay one weight out as no kernel of the deployment reads it; Triton's of gfx1250 read tiles, too."""
    role = draw.choice(("w13_weight", "w2_weight"))
    tensor = raw["applied"]["tensors"][role]
    tensor["layout"] = "gui16" if tensor["layout"] in ("plain", "gurow16") else "gurow16"
    return "layout_mismatch"


def a_lost_tag(raw: Raw, draw: random.Random) -> str | None:
    tensors = raw["applied"]["tensors"]
    if not tensors["w13_weight"].get("is_shuffled"):
        return None
    for role in ("w13_weight", "w2_weight"):
        tensors[role]["is_shuffled"] = False
    return "tag_lost"


def applied_twice(raw: Raw, draw: random.Random) -> str | None:
    if raw["applied"]["tensors"]["w13_weight"]["layout"] == "plain":
        return None
    raw["applied"]["events"] = ["apply", "apply"]
    return "double_shuffle"


def another_order(raw: Raw, draw: random.Random) -> str | None:
    order = raw["applied"].get("source_order")
    if order is None:
        return None
    raw["applied"]["source_order"] = {"GGUU": "GUGU", "GUGU": "GGUU"}[order]
    return "source_order_mismatch"


def a_strided_weight(raw: Raw, draw: random.Random) -> str | None:
    if raw["applied"].get("kernels"):  # Triton's kernels take strides
        return None
    raw["applied"]["tensors"][draw.choice(("w13_weight", "w2_weight"))]["contiguous"] = False
    return "non_contiguous"


def an_undefined_pad(raw: Raw, draw: random.Random) -> str | None:
    tensor = raw["applied"]["tensors"]["w2_weight"]
    if tensor.get("pad_fill") is None:
        return None
    tensor["pad_fill"] = "uninitialised"
    return "pad_fill"


BREAKS = (another_layout, a_lost_tag, applied_twice, another_order, a_strided_weight, an_undefined_pad)


def follow_and_break(registry: Registry, number: int, seed: int) -> Counter[str]:
    """Follow random decisions and break each in one way; return what was tried and what went wrong."""
    draw, counted = random.Random(seed + 1), Counter[str]()
    for query, decision in decided(registry, number, seed):
        report = registry.check(observation_of(decision, query))
        counted["followed"] += 1
        wrong = any(finding.severity == "error" for finding in decision.findings)
        if not wrong and report.verdict not in ("ok", "degraded", "unknown"):
            counted[f"followed, but {report.verdict}"] += 1
        known = report.verdict in ("ok", "degraded")
        way = draw.choice(BREAKS)
        raw = raw_of(query, decision)
        code = way(raw, draw)
        if code is None or wrong or not known:
            continue
        counted["broken"] += 1
        found = {finding.code for finding in registry.check(Observation.parse(raw)).findings}
        if code not in found:
            counted[f"missed: {way.__name__}"] += 1
            print(way.__name__, query.model_dump(exclude_unset=True), decision.recipe, found)
    return counted


def missed(counted: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in counted.items() if name not in ("followed", "broken")}


def test_a_followed_decision_is_right_and_a_broken_one_is_found() -> None:
    counted = follow_and_break(REGISTRY, 150, SEED)
    assert counted["broken"] > 40
    assert missed(counted) == {}


@pytest.mark.slow
def test_five_thousand_random_deployments() -> None:
    counted = follow_and_break(REGISTRY, 5000, SEED + 7)
    print(dict(counted))
    assert missed(counted) == {}

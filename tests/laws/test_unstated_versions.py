"""What is not stated never acquits: a verdict without a version is no better than the best over all versions."""

from __future__ import annotations

import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from laws.test_random_deployments import BREAKS, decided, raw_of

from preshuffle.registry import Observation, Query, Registry, observation_of
from preshuffle.registry.kernels import dispatch_book
from preshuffle.registry.values.report import MEANINGS, Verdict
from support.book.mutations import Raw
from support.book.strategies import BOOK, REGISTRY

ORDER = list(MEANINGS)  # the best first
SEED = 20261201
AITERS = sorted(
    {dispatch_book().newest, "0.1.10", "0.1.13", "0.1.15", *(entry.since for entry in dispatch_book().timeline)}
    | {feature.since for feature in BOOK.features.values()}
)
STAYS = {("query", "model"), ("query", "arch"), ("query", "engine")}


def releases(engine: str) -> list[str]:
    """Return the releases of an engine at which the book knows a change."""
    rules = [rule for rule in BOOK.rules.values() if rule.since and rule.when.get("engine") == engine]
    return sorted({BOOK.engines[engine].newest, BOOK.engines[engine].first, *(rule.since or "" for rule in rules)})


ENGINES = {name: releases(name) for name in BOOK.engines}


def paths_of(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, inner in value.items() if isinstance(value, dict) else ():
        here = (*path, name)
        if here in STAYS:
            continue
        if len(here) > 1:
            yield here
        yield from paths_of(inner, here)


def with_less(raw: Raw, draw: random.Random) -> Raw:
    """Leave some fields out."""
    copy = deepcopy(raw)
    paths = list(paths_of(copy))
    for *folders, name in draw.sample(paths, min(len(paths), draw.choice((1, 2, 4, 8)))):
        inner: Any = copy
        for folder in folders:
            inner = inner.get(folder, {})
        inner.pop(name, None)
    return copy


def partial_observations(registry: Registry, number: int, seed: int) -> Iterator[Raw]:
    """Yield observations of followed decisions, some broken in one way, some with fields left out."""
    draw = random.Random(seed)
    for query, decision in decided(registry, number, seed):
        raw = raw_of(query, decision)
        if draw.random() < 0.5:
            draw.choice(BREAKS)(raw, draw)
        yield with_less(raw, draw) if draw.random() < 0.6 else raw


def verdict(registry: Registry, raw: Raw, **query: Any) -> Verdict:
    stated = {name: value for name, value in {**raw["query"], **query}.items() if value is not None}
    return registry.check(Observation.parse({**raw, "query": stated})).verdict


def better_without(registry: Registry, raw: Raw) -> Iterator[str]:
    """Yield what the verdict is better without."""
    without = verdict(registry, raw, aiter=None)
    if ORDER.index(without) < min(ORDER.index(verdict(registry, raw, aiter=version)) for version in AITERS):
        yield f"AITER's version: {without}"
    engine = raw["query"].get("engine")
    if engine is None:
        return
    name = engine["name"]
    without = verdict(registry, raw, engine={"name": name})
    stated = [verdict(registry, raw, engine={"name": name, "version": version}) for version in ENGINES[name]]
    if ORDER.index(without) < min(map(ORDER.index, stated)):
        yield f"{name}'s version: {without}"


def assert_no_better(number: int, seed: int) -> None:
    found = [
        (raw, what) for raw in partial_observations(REGISTRY, number, seed) for what in better_without(REGISTRY, raw)
    ]
    assert not found, (len(found), found[0])


def test_no_version_is_no_better_than_the_best() -> None:
    assert_no_better(60, SEED)


@pytest.mark.slow
def test_no_version_of_three_thousand_is_better() -> None:
    assert_no_better(3000, SEED + 7)


MINIMAX = {
    "model": "amd/MiniMax-M3-MXFP4",
    "arch": "gfx950",
    "tp": 8,
    "engine": "vllm",
    "env": {"VLLM_ROCM_USE_AITER": "1"},
}


def test_what_is_wrong_in_every_version_is_said_without_one() -> None:
    """CK-Tile's stage 2 mis-indexes scales where 256 does not divide a rank's intermediate size: aiter#5233."""
    query = Query.parse({**MINIMAX, "tokens": [8]})
    report = REGISTRY.check(observation_of(REGISTRY.resolve(query), query))
    assert "known_bad" in {finding.code for finding in report.findings}


def test_a_version_that_decides_is_asked_for() -> None:
    """Kimi-K3's kernels with bf16 activations raise for an expert mask from 0.1.20 on, and took one before."""
    query = {"model": "moonshotai/Kimi-K3", "arch": "gfx950", "ep": 8, "activation_dtype": "bf16", "tokens": [64]}
    old = Query.parse({**query, "aiter": "0.1.19"})
    raw = raw_of(old, REGISTRY.resolve(old))
    assert verdict(REGISTRY, raw, aiter="0.1.19") == "ok"
    assert verdict(REGISTRY, raw, aiter="0.1.20") == "unsupported"
    del raw["query"]["aiter"]
    report = REGISTRY.check(Observation.parse(raw))
    assert report.verdict == "unknown"
    assert not [finding for finding in report.findings if finding.severity == "error"]
    assert any("say which AITER runs" in note for note in report.notes), report.notes

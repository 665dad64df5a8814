"""What a finding advises is applied: the finding goes, and no error comes that was not there."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest

from preshuffle.registry import Finding, NoRecipeError, Observation, Query, QueryError, Registry, observation_of
from support.book.fixes import Change, ways_of
from support.book.mutations import KINDS, broken
from support.book.provoke import ENGINE_ON, provoke, switches_of

Raw = dict[str, Any]
ENGINES = (None, "atom", "vllm", "sglang", "vllm@0.23.0")
AITERS = ("0.1.14", "0.1.16", "0.1.19", "0.1.20")
EACH = 3
"""Deployments per fix: the first ones of the grid that are told it."""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.default()


Error = tuple[str, str | None, str]


def key_of(finding: Finding) -> Error:
    """Return what it is about: code, role and its message without the token counts and sizes at its end."""
    return finding.code, finding.role, finding.message[:50]


def errors(findings: Iterable[Finding]) -> set[Error]:
    """Return what the errors among some findings are about."""
    return {key_of(finding) for finding in findings if finding.severity == "error"}


def turns_aiter_off(change: Change) -> bool:
    """Whether the engine then runs its own kernels on plain bytes, of which the registry lays out nothing."""
    return any(name.endswith(("USE_AITER", "USE_AITER_MOE")) and value == "0" for name, value in change.env.items())


def decided_anew(registry: Registry, raw: Raw, change: Change) -> set[Error]:
    """Return the errors of the deployment that follows the fix from the beginning."""
    query = change.query(raw)
    try:
        decision = registry.resolve(query)
    except NoRecipeError as error:
        return set() if error.rule is None and turns_aiter_off(change) else {("refused", None, str(error))}
    observed = observation_of(decision, query).model_dump(mode="json", exclude_unset=True)
    return errors(registry.check(Observation.parse(change.observation(observed))).findings)


def changed_in_place(registry: Registry, observation: Raw, change: Change) -> set[Error]:
    """Return the errors of a running deployment after the change."""
    changed = change.observation(observation)
    changed["query"] = change.query(changed["query"]).model_dump(mode="json", exclude_unset=True)
    return errors(registry.check(Observation.parse(changed)).findings)


def grid(registry: Registry) -> Iterable[Raw]:
    models = [model.id for model in registry.book.models.values() if model.hidden_size]
    for model, arch, engine, aiter, tp in product(models, ("gfx942", "gfx950", "gfx1250"), ENGINES, AITERS, (1, 8)):
        raw: Raw = {"model": model, "arch": arch, "aiter": aiter, "tp": tp}
        if engine:
            raw |= {"engine": engine, "env": dict(ENGINE_ON.get(engine.partition("@")[0], {}))}
        yield raw


def test_fixes_of_decisions_end_without_new_errors(registry: Registry) -> None:
    told: dict[tuple[str, str], list[tuple[Raw, set[Error], Error]]] = defaultdict(list)
    for raw in grid(registry):
        try:
            findings = registry.resolve(Query.parse(raw), nearest=False).findings
        except (NoRecipeError, QueryError):
            continue
        for finding in findings:
            if finding.severity == "error" and finding.fix and len(told[finding.code, finding.fix]) < EACH:
                told[finding.code, finding.fix].append((raw, errors(findings), key_of(finding)))
    applied = 0
    for (_, fix), cases in told.items():
        for raw, before, broken_one in cases:
            engine = str(raw.get("engine", "")).partition("@")[0] or None
            for change in ways_of(registry.book, fix, engine=engine):
                after = decided_anew(registry, raw, change)
                applied += 1
                assert broken_one not in after, (change.text, raw)
                assert after <= before, (change.text, raw, after - before)
    assert applied >= 20


def sections(registry: Registry) -> list[tuple[str, Any, str]]:
    entries = registry.book.entries
    return [
        *((entry.id, entry, entry.fix) for entry in entries["contracts"].values()),
        *((entry.id, entry, entry.workaround) for entry in entries["known_bad"].values()),
    ]


def test_fixes_of_contracts_and_known_problems_end_without_new_errors(registry: Registry) -> None:
    reached: set[str] = set()
    for id, entry, fix in sections(registry):
        found = provoke(registry, entry.when, entry.says[:50])
        if found is None:
            continue
        reached.add(id)
        raw, observation, report = found
        before = errors(report.findings)
        engine = str(raw.get("engine", "")).partition("@")[0] or None
        for change in ways_of(registry.book, fix, tuple(switches_of(entry.when)), engine):
            results = (changed_in_place(registry, observation, change), decided_anew(registry, raw, change))
            own = [result for result in results if not any(text == entry.says[:50] for _, _, text in result)]
            assert any(result <= before for result in own), (id, change.text, raw, results)
    assert len(reached) >= 45


@pytest.mark.parametrize("engine", [None, "atom", "vllm", "sglang"])
def test_switches_that_a_fix_names_are_read_by_that_deployment(registry: Registry, engine: str | None) -> None:
    """A way out by another engine's switch is none, unless it names that engine."""
    for id, entry, fix in sections(registry):
        if entry.when.get("engine") not in (None, engine):
            continue
        for name, flag in registry.book.flags.items():
            if name in fix and f"env.{name}" not in entry.when and "engine" not in entry.when:
                readers = {flag.owner, *flag.also, *flag.choices}
                named = any(word in fix for word in ("in vLLM", "in SGLang", "in ATOM", "ATOM with"))
                assert "aiter" in readers or flag.without_engine or named, (id, name)


@pytest.mark.parametrize("kind", KINDS)
def test_fixes_of_broken_deployments_end_healthy(registry: Registry, kind: str) -> None:
    for model, gate in (("openai/gpt-oss-120b", "fp4x2"), ("openai/gpt-oss-120b", "bf16")):
        query = Query.parse({"model": model, "arch": "gfx950", "tp": 1, "aiter": "0.1.20", "activation_dtype": gate})
        decision = registry.resolve(query)
        correct = observation_of(decision, query).model_dump(mode="json", exclude_unset=True)
        correct["query"].setdefault("env", {})
        wrong = broken(kind, correct, decision, query, random.Random(7))
        if wrong is None:
            continue
        report = registry.check(Observation.parse(wrong[0]))
        for finding in report.findings:
            for change in ways_of(registry.book, finding.fix or "") if finding.severity == "error" else ():
                after = changed_in_place(registry, wrong[0], change)
                assert key_of(finding) not in after, (kind, change.text)
                assert after <= errors(report.findings), (kind, change.text)

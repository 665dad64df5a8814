"""Strings and lists of what users send have limits, which errors name."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from preshuffle.api.fleet import ReplicaReport
from preshuffle.registry import Registry
from preshuffle.registry.base import limits
from preshuffle.registry.base.errors import QueryError
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.query import Query

QUERY: dict[str, Any] = {"model": "openai/gpt-oss-120b", "arch": "gfx950"}


def observed(**applied: Any) -> dict[str, Any]:
    return {"query": QUERY, "applied": applied}


def problem_of(kind: type[Any], value: Any) -> str:
    with pytest.raises(QueryError) as found:
        kind.parse(value)
    assert len(found.value.problems) <= limits.MAX_PROBLEMS + 1
    assert len(str(found.value)) < 40_000
    return str(found.value)


@pytest.mark.parametrize(
    "field", ["model", "arch", "producer", "deployment", "all_to_all", "aiter", "rocm", "engine", "env"]
)
def test_every_text_of_a_query_has_a_limit(field: str) -> None:
    value: Any = {"A" * 300: "1"} if field == "env" else "1" * 10_000
    assert field in problem_of(Query, {**QUERY, field: value})


@pytest.mark.parametrize("name", ["layout", "dtype"])
def test_every_text_of_a_tensor_has_a_limit(name: str) -> None:
    assert name in problem_of(Observation, observed(tensors={"w13_weight": {name: "x" * 10_000}}))


@pytest.mark.parametrize("name", ["stage1", "stage2", "backend"])
def test_every_text_of_a_kernel_has_a_limit(name: str) -> None:
    text = problem_of(Observation, observed(kernels=[{name: "x" * 2000}]))
    assert f"applied.kernels.0.{name}" in text
    assert str(limits.MAX_NAME if name == "backend" else limits.MAX_KERNEL_NAME) in text


@pytest.mark.parametrize(
    ("field", "items", "limit"),
    [
        ("kernels", [{}], limits.MAX_KERNELS),
        ("events", ["apply"], limits.MAX_EVENTS),
        ("dummy_slots", [0], limits.MAX_SLOTS),
        ("mask_ones", [1], limits.MAX_RANKS),
        ("local_experts", [1], limits.MAX_RANKS),
        ("kernels", ["not a kernel"], limits.MAX_KERNELS),
    ],
)
def test_every_list_has_a_limit(field: str, items: list[Any], limit: int) -> None:
    text = problem_of(Observation, observed(**{field: items * (limit + 1)}))
    assert f"applied.{field}: {limit + 1:,} items; valid: {limit:,} at most" in text
    if items != ["not a kernel"]:
        Observation.parse(observed(**{field: items * limit}))


def test_every_mapping_has_a_limit() -> None:
    assert "512 at most" in problem_of(Query, {**QUERY, "env": {f"A{index}": "1" for index in range(513)}})
    assert "256 at most" in problem_of(Query, {**QUERY, "aiter_features": {f"a{index}": True for index in range(257)}})
    assert "64 at most" in problem_of(Observation, observed(tensors={f"a{index}": {} for index in range(65)}))
    group = {"layers": "0", "observation": observed()}
    assert "256 at most" in problem_of(ReplicaReport, {"groups": [group] * 257})


def test_no_text_or_list_of_an_input_is_without_a_limit() -> None:
    """Walk the schemas: every string has a length, a pattern or a list of values; every list and mapping a number."""
    for kind in (Query, Observation, ReplicaReport):
        schema = kind.model_json_schema()
        for name, part in {kind.__name__: schema, **schema.get("$defs", {})}.items():
            for field, value in part.get("properties", {}).items():
                for option in value.get("anyOf", [value]):
                    if option.get("type") == "string" and field not in (
                        "aiter",
                        "rocm",
                        "version",
                        "aiter_features",
                        "engine",
                    ):
                        assert {"maxLength", "enum", "const", "pattern"} & option.keys(), (name, field)
                    if option.get("type") == "array":
                        assert "maxItems" in option, (name, field)


def test_problems_beyond_a_hundred_are_counted() -> None:
    text = problem_of(Query, {**QUERY, **{f"k{index}": 1 for index in range(1100)}})
    assert "and 1,000 more problems" in text
    assert len(get_args(Any) or text.splitlines()) == 101


def test_findings_of_one_kind_are_at_most_a_hundred_and_a_count() -> None:
    from preshuffle.registry.check.checker import _listed

    found = [Finding.of("stale_row", f"row {index}") for index in range(250)] + [Finding.of("tag_lost", "lost")]
    shown = list(_listed(found))
    assert [finding.code for finding in shown].count("stale_row") == limits.MAX_PROBLEMS + 1
    assert "and 150 more findings of this kind" in [finding.message for finding in shown]
    assert shown[-1].code == "tag_lost"


def test_a_name_of_any_length_is_answered_at_once() -> None:
    report = Registry.load().check(Observation.parse(observed(kernels=[{"stage1": "moe_ck2stages_" * 36}])))
    assert report.verdict

"""Public values are immutable to the last level: no list, no plain dict, no assignment."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from preshuffle.registry import Observation, Query, observation_of
from preshuffle.registry.base.frozen import FrozenDict, freeze
from support.book.strategies import BOOK, GPT_OSS, REGISTRY, decide

QUERY = Query.parse({**GPT_OSS, "engine": "vllm", "env": {"VLLM_ROCM_USE_AITER_MOE": "1"}, "aiter_features": {}})
DECISION = decide(engine="vllm", tp=2)


def mutable(value: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of everything inside a value that can be changed."""
    if isinstance(value, BaseModel):
        if not value.model_config.get("frozen"):
            yield path
        for name in type(value).model_fields:
            yield from mutable(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, dict):
        if not isinstance(value, FrozenDict):
            yield path
        for name, item in value.items():
            yield from mutable(item, f"{path}[{name!r}]")
    elif isinstance(value, tuple | frozenset):
        for item in value:
            yield from mutable(item, f"{path}[]")
    elif isinstance(value, list | set):
        yield path


@pytest.mark.parametrize(
    "value",
    [
        QUERY,
        DECISION,
        observation_of(DECISION, QUERY),
        Observation.parse({"query": {**GPT_OSS, "env": {"A": "1"}}, "applied": {"tensors": {"w2_weight": {}}}}),
        REGISTRY.check(observation_of(DECISION, QUERY)),
    ],
    ids=["query", "decision", "observation", "parsed", "report"],
)
def test_values_are_frozen_to_the_last_level(value: BaseModel) -> None:
    assert list(mutable(value)) == []
    assert list(mutable(type(value).model_validate(value.model_dump(mode="json")))) == []


@pytest.mark.parametrize("section", ["rules", "recipes", "flags", "model_types", "contracts", "known_bad"])
def test_entries_of_the_book_are_frozen(section: str) -> None:
    found = {path for entry in BOOK.entries[section].values() for path in mutable(entry, section)}
    assert found == set()


def test_every_way_to_change_a_frozen_dict_is_refused() -> None:
    fixed = FrozenDict(a=1)
    ways: tuple[Callable[[], Any], ...] = (
        lambda: fixed.update(a=2),
        lambda: fixed.pop("a"),
        lambda: fixed.popitem(),
        lambda: fixed.setdefault("b", 1),
        lambda: fixed.clear(),
        lambda: fixed.__setitem__("a", 2),
        lambda: fixed.__delitem__("a"),
        lambda: fixed.__ior__({"a": 2}),
    )
    for way in ways:
        with pytest.raises(TypeError, match="immutable"):
            way()
    assert fixed == {"a": 1}


def test_freeze_reaches_the_last_level_and_keeps_the_json() -> None:
    value = freeze({"a": [1, {"b": [2]}]})
    assert value == {"a": (1, {"b": (2,)})}
    assert list(mutable(value)) == []


def test_a_decisions_mappings_refuse_assignment() -> None:
    with pytest.raises(TypeError, match="immutable"):
        DECISION.env["A"] = "1"
    with pytest.raises(ValidationError, match="frozen"):
        DECISION.recipe = "other"  # type: ignore[misc]

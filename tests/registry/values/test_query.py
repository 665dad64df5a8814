"""The question: what it takes, and how it refuses what it does not."""

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from preshuffle.registry import BookError, Engine, NoRecipeError, PreshuffleError, Query, QueryError, Registry
from preshuffle.registry.base.errors import FieldProblem, NearMatch, Problem
from preshuffle.registry.values.query import TOKENS
from support.book.strategies import GPT_OSS, REGISTRY

NAN = float("nan")


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("model", "", "model: string should have at least 1 character, found ''"),
        ("model", None, "model: input should be a valid string, found None"),
        ("model", "x" * 513, "model: string should have at most 512 characters, found 'xxxx"),
        ("model", "\ud800", "model: input should be a valid string, unable to parse raw data as a unicode string"),
        ("arch", "gfx", "arch: string should match pattern '^[A-Za-z0-9 ._-]*[0-9][A-Za-z0-9 ._:+-]*$', found 'gfx'"),
        ("arch", "gfx950;gfx942", "arch: string should match pattern"),
        ("arch", "gfx950" + ":" * 59, "arch: string should have at most 64 characters"),
        ("arch", "gfx950\n", "arch: string should match pattern"),
        ("arch", "gfx\u0669\u0665\u0660", "arch: string should match pattern"),
        ("tp", True, "tp: a number is needed, found True"),
        ("ep", False, "ep: a number is needed, found False"),
        ("num_experts", True, "num_experts: a number is needed, found True"),
        ("tp", 0, "tp: input should be greater than or equal to 1, found 0"),
        ("tp", -1, "tp: input should be greater than or equal to 1, found -1"),
        ("tp", 10**30, "tp: input should be less than or equal to 4096, found 1000"),
        pytest.param("tp", 10**5000, "tp: input should be less than or equal to 4096, found a number of", id="huge"),
        ("tp", 1.5, "tp: input should be a valid integer, got a number with a fractional part, found 1.5"),
        ("tp", NAN, "tp: input should be a finite number, found nan"),
        ("tp", None, "tp: input should be a valid integer, found None"),
        ("hidden_size", 2**20 + 1, "hidden_size: input should be less than or equal to 1048576"),
        (
            "activation_dtype",
            "int4",
            "activation_dtype: 'int4' is not one of the valid values (did you mean i4x2?); valid: bf16, fp16, fp8",
        ),
        ("activation_dtype", "x" * 10**6, "activation_dtype: 'xxxxx"),
        (
            "gate_up_order",
            "gguu",
            "gate_up_order: 'gguu' is not one of the valid values (did you mean GGUU?); valid: GGUU, GUGU",
        ),
        ("aiter", "latest", "aiter: 'latest' is not a version (PEP 440), for example 0.1.20.post1"),
        ("aiter", "", "aiter: '' is not a version"),
        ("aiter", 0.1, "aiter: input should be a valid string, found 0.1"),
        ("rocm", "seven", "rocm: 'seven' is not a version"),
        ("engine", "", "engine.name: string should have at least 1 character, found ''"),
        ("engine", "@1.0", "engine.name: string should have at least 1 character, found ''"),
        ("engine", "vllm@", "engine: 'vllm@': a version is missing after the @"),
        ("engine", "vllm@nightly", "engine.version: 'nightly' is not a version"),
        ("engine", "vllm@0.33@1", "engine.version: '0.33@1' is not a version"),
        ("engine", {"name": "vllm", "build": 1}, "engine.build: unknown field"),
        ("engine", 5, "engine: input should be a valid dictionary, found 5"),
        ("tokens", [], "tokens: tuple should have at least 1 item after validation, not 0, found []"),
        ("tokens", [0], "tokens.0: input should be greater than or equal to 1, found 0"),
        ("tokens", [1, True], "tokens.1: a number is needed, found True"),
        ("tokens", [2**31 + 1], "tokens.0: input should be less than or equal to 2147483648"),
        ("tokens", [1] * 257, "tokens: 257 items; valid: 256 at most"),
        ("tokens", "1,64", "tokens: input should be a valid tuple, found '1,64'"),
        ("env", {"A": True}, "env.A: input should be a valid string, found True"),
        ("env", {"A": None}, "env.A: input should be a valid string, found None"),
        ("env", {"A": 1.5}, "env.A: input should be a valid string, found 1.5"),
        ("env", ["A=1"], "env: input should be a valid dictionary, found ['A=1']"),
        ("gated", None, "gated: input should be a valid boolean, found None"),
        ("modle", "x", "modle: unknown field"),
    ],
)
def test_a_wrong_field_gives_one_clear_line(field: str, value: object, text: str) -> None:
    with pytest.raises(QueryError) as caught:
        Query.parse({**GPT_OSS, field: value})
    (problem,) = caught.value.problems
    assert str(caught.value) == str(problem)
    assert str(problem).startswith(text)
    assert len(str(problem)) < 250


@pytest.mark.parametrize("value", [None, [], "gpt-oss", 1, b"{}"])
def test_what_is_no_mapping_is_refused(value: object) -> None:
    with pytest.raises(QueryError, match="valid dictionary"):
        Query.parse(value)


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(QueryError) as caught:
        Query.parse({"tp": 0, "aiter": "x", "tokens": [1, 0, -1]})
    assert [item.field for item in caught.value.problems] == ["model", "arch", "tp", "aiter", "tokens.1", "tokens.2"]


@pytest.mark.parametrize(
    ("value", "engine"),
    [
        ("vllm", Engine(name="vllm")),
        ("vllm@0.33.0", Engine(name="vllm", version="0.33.0")),
        ({"name": "atom", "version": "0.1.7"}, Engine(name="atom", version="0.1.7")),
        (None, None),
    ],
)
def test_an_engine_may_be_written_short(value: object, engine: Engine | None) -> None:
    query = Query.parse({**GPT_OSS, "engine": value})
    assert query.engine == engine
    assert query.engine is None or Query.parse({**GPT_OSS, "engine": str(query.engine)}) == query


def test_numbers_in_the_environment_become_text_and_defaults_are_the_design() -> None:
    query = Query.parse({**GPT_OSS, "env": {"A": 1, "B": "", "\x00": "\u202e"}})
    assert query.env == {"A": "1", "B": "", "\x00": "\u202e"}
    assert (query.tp, query.ep, query.gated, query.tokens) == (1, 1, True, TOKENS)
    assert TOKENS == (1, 16, 64, 256, 1024, 4096, 16384)


@pytest.mark.parametrize("field", ["tp", "env", "model"])
def test_a_query_is_frozen(field: str) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(Query.parse(GPT_OSS), field, getattr(Query.parse(GPT_OSS), field))


def test_what_is_done_to_an_answer_does_not_reach_the_book_or_the_next_answer() -> None:
    environment = {"A": "1"}
    query = Query.parse({**GPT_OSS, "env": environment})
    environment["A"] = "2"
    assert query.env == {"A": "1"}
    first = REGISTRY.resolve(query)
    expected = first.model_copy(deep=True)
    for mapping in (first.env, first.tensors):
        with pytest.raises(TypeError, match="immutable"):
            mapping.clear()
    assert REGISTRY.resolve(query) == expected


def test_queries_and_decisions_travel() -> None:
    query = Query.parse({**GPT_OSS, "engine": "vllm@0.33.0", "env": {"A": "1"}, "tokens": [1, 7]})
    decision = REGISTRY.resolve(query)
    for value in (query, decision):
        assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value
        assert type(value).model_validate_json(value.model_dump_json()) == value
    again: Registry = pickle.loads(pickle.dumps(REGISTRY))
    assert again.resolve(query) == decision


@pytest.mark.parametrize(
    "error",
    [
        QueryError([FieldProblem("tp", "wrong", ("1", "2")), FieldProblem("ep", "wrong")]),
        BookError([Problem("a.yaml", 1, 2, "wrong", ("right",)), Problem("b.yaml", 3, 4, "wrong")]),
        NoRecipeError("none", [NearMatch("r", "s", "why")], ["tp"]),
    ],
)
def test_errors_travel_with_their_text(error: PreshuffleError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert str(again) == str(error)
        assert vars(again) == vars(error)


def test_the_default_registry_is_one_for_all_threads() -> None:
    found: list[str] = []
    gate = threading.Barrier(8)

    def ask() -> None:
        gate.wait()
        found.append(Registry.default().resolve(Query.parse(GPT_OSS)).decision_digest)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert Registry.default() is REGISTRY


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(Query.model_fields)), json_values, max_size=6),
    st.sampled_from([{}, GPT_OSS]),
)
def test_any_json_is_answered_or_refused_in_our_words(fields: dict[str, Any], base: dict[str, Any]) -> None:
    try:
        said = REGISTRY.resolve(Query.parse({**base, **fields})).reason
    except PreshuffleError as error:
        said = str(error)
    assert said


def test_token_counts_count_once_in_their_order() -> None:
    assert Query.parse({**GPT_OSS, "tokens": [64, 1, 64, 16, 1]}).tokens == (64, 1, 16)


def test_equal_queries_are_one_key_and_their_environment_stays() -> None:
    first, second = (Query.parse({**GPT_OSS, "env": env}) for env in ({"A": "1", "B": "2"}, {"B": "2", "A": "1"}))
    assert first == second
    assert len({first, second, first.model_copy(), copy.deepcopy(first), pickle.loads(pickle.dumps(first))}) == 1
    changes: list[Callable[[Any], object]] = [
        lambda env: env.update(A="2"),
        lambda env: env.pop("A"),
        lambda env: env.__setitem__("C", "3"),
    ]
    for change in changes:
        with pytest.raises(TypeError, match="FrozenDict is immutable"):
            change(first.env)
    assert first.model_dump(mode="json")["env"] == {"A": "1", "B": "2"}

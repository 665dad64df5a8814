"""A digest put together by field is the digest of the JSON, and decisions made without validation are valid ones."""

import itertools
import json
from typing import Any

import pytest

from preshuffle.registry import Decision, NoRecipeError, Query, QueryError, Registry
from preshuffle.registry.values.digest import decision_digest, digest_of

ENGINES = (None, "atom", "vllm", "sglang")


@pytest.fixture(scope="module")
def decisions() -> list[Decision]:
    """Return decisions on every model of the book, on two GPUs, in every engine."""
    registry = Registry.default()
    models = [model.id for model in registry.book.models.values() if model.hidden_size]
    found = []
    for model, arch, engine, tp in itertools.product(models, ("gfx942", "gfx950"), ENGINES, (1, 8)):
        fields = {"model": model, "arch": arch, "tp": tp, "swiglu_limit": 7} | ({"engine": engine} if engine else {})
        try:
            found.append(registry.resolve(Query.parse(fields)))
        except (NoRecipeError, QueryError):
            continue
    return found


def meant(decision: Decision, parts: set[str]) -> dict[str, Any]:
    """What a digest is of.

    A layout's line only where an overlay defines the layout, a second shape or fill where there is one, flags of router
    weights if set.
    """
    said = decision.model_dump(mode="json", include=parts)
    for tensor in said["tensors"].values():
        for name in ("layout_line", "passed_shape", "tail"):
            if tensor[name] is None:
                del tensor[name]
        del tensor["default"]  # says what may be left out; bytes made of the same tensors stay
    del said["call"]["expert_map"]  # follows from the backend
    for flag in ("doweight_stage1", "weighted_by_caller"):
        if not said["call"][flag]:
            del said["call"][flag]
    return said


def test_digest_is_that_of_the_json(decisions: list[Decision]) -> None:
    assert len({decision.recipe for decision in decisions}) > 10
    for decision in decisions:
        said = meant(decision, {"recipe", "tensors", "call", "env"})
        assert decision.decision_digest == digest_of(said), decision.recipe


def test_digest_of_words_that_need_quoting(decisions: list[Decision]) -> None:
    first = decisions[0]
    env = {"B": 'a "word" \\ and ü', "A": "\n"}
    said = meant(first, {"tensors", "call"}) | {"recipe": 'r"', "env": env}
    assert decision_digest('r"', first.tensors, first.call, env) == digest_of(said)


def test_decisions_are_valid_and_their_json_in_order(decisions: list[Decision]) -> None:
    for decision in decisions:
        text = decision.model_dump_json(exclude={"kernels"})
        again = Decision.model_validate_json(decision.model_dump_json())
        assert again == decision
        assert again.model_dump_json(exclude={"kernels"}) == text
        assert list(json.loads(text)) == [name for name in Decision.model_fields if name != "kernels"]

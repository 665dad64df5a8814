"""Answers are immutable to the last level, so that sharing them is safe."""

from collections.abc import Iterator

import pytest
from pydantic import BaseModel, ValidationError

from preshuffle.registry import Query, Registry, observation_of
from preshuffle.registry.base.frozen import FrozenDict
from preshuffle.registry.kernels import DispatchCall, dispatch, trace

QUERY = Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype="fp4x2", aiter="0.1.20", engine="vllm")
CALL = DispatchCall(
    gfx="gfx950",
    cu_num=256,
    tokens=16,
    model_dim=3072,
    inter_dim=3072,
    expert=128,
    topk=4,
    activation="Swiglu",
    weight_dtype="fp4x2",
    quant_type="per_1x32",
    env={"AITER_KSPLIT": "2"},
)


def answers() -> dict[str, BaseModel]:
    registry = Registry.default()
    decision = registry.resolve(QUERY)
    report = registry.check(observation_of(decision, QUERY), decide=True)
    return {
        "decision": decision,
        "report": report,
        "explanation": registry.explain(QUERY),
        "choice": dispatch(CALL),
        "trace": trace(CALL),
        "predicted": registry.predict(QUERY, 64),
    }


def parts(value: object, path: str) -> Iterator[tuple[str, object]]:
    yield path, value
    if isinstance(value, BaseModel):
        for name, inner in value.__dict__.items():
            yield from parts(inner, f"{path}.{name}")
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from parts(inner, f"{path}[{key!r}]")
    elif isinstance(value, tuple | frozenset):
        for inner in value:
            yield from parts(inner, f"{path}[]")


@pytest.mark.parametrize("name", ["decision", "report", "explanation", "choice", "trace", "predicted"])
def test_no_part_of_an_answer_is_mutable(name: str) -> None:
    for path, value in parts(answers()[name], name):
        assert value is None or isinstance(value, str | int | float | tuple | frozenset | FrozenDict | BaseModel), (
            f"{path} is a {type(value).__name__}"
        )
        assert not isinstance(value, BaseModel) or value.model_config.get("frozen"), path


def test_changing_an_answer_raises_and_the_next_one_is_unaffected() -> None:
    registry = Registry.default()
    decision = registry.resolve(QUERY)
    before = decision.model_dump_json()
    with pytest.raises(TypeError):
        decision.tensors["w13_weight"] = decision.tensors["w2_weight"]
    with pytest.raises(TypeError):
        decision.env.update(AITER_KSPLIT="2")
    stage = decision.kernels[0].stage1
    assert stage is not None
    with pytest.raises(TypeError):
        stage.reads["w13_weight"] = "plain"
    with pytest.raises(ValidationError):
        decision.kernels[0].notes = ()  # type: ignore[misc]  # the wrong assignment is the point
    assert registry.resolve(QUERY).model_dump_json() == before
    assert Registry.load().resolve(QUERY).model_dump_json() == before


def test_an_equal_query_gets_the_same_decision() -> None:
    registry = Registry.default()
    assert registry.resolve(QUERY) is registry.resolve(QUERY.model_copy())

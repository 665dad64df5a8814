"""Deciding over HTTP gives what deciding in process gives."""

from pathlib import Path

import pytest

from preshuffle.api.answers.answers import Answers
from preshuffle.api.app import create_app
from preshuffle.api.settings import Settings
from preshuffle.registry import Decision, Query, Registry
from support.service.server import Client

FIELDS = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "fp4x2", "tp": 2}


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default()))


def test_post_is_resolve(client: Client) -> None:
    response = client.post("/v1/resolve", json=FIELDS)
    assert Decision.model_validate(response.json()) == Registry.default().resolve(Query.parse(FIELDS))


def test_get_reads_every_kind_of_parameter(client: Client) -> None:
    query = {
        "model": "openai/gpt-oss-20b",
        "arch": "gfx950",
        "engine": "vllm@0.33.0",
        "bias": True,
        "router_weight_on_input": False,
        "aiter": "0.1.20",
        "aiter_features": {"gate_mode": True, "mxmoe_a4w4": False},
        "env": {"VLLM_ROCM_USE_AITER": "1", "X": "a=b"},
        "tokens": [1, 64],
    }
    features = {"aiter_features": "gate_mode,!mxmoe_a4w4"}
    params = {
        **query,
        **features,
        "bias": "true",
        "router_weight_on_input": "false",
        "env": ["VLLM_ROCM_USE_AITER=1", "X=a=b"],
        "tokens": "1,64",
    }
    response = client.get("/v1/resolve", params=params)
    assert response.status_code == 200, response.text
    assert response.json() == client.post("/v1/resolve", json=query).json()
    assert [bucket["tokens"] for bucket in response.json()["kernels"]] == [1, 64]
    assert "AITER 0.1.20 has gate_mode (probed)" in response.json()["reason"]


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ("&colour=red", "colour"),
        ("&tp=1&tp=2", "tp"),
        ("&env=NOTHING", "env"),
        ("&env=A=1&env=A=2", "env"),
        ("&tokens=1,x", "tokens.1"),
        ("&tokens=", "tokens.0"),
        ("&gated=perhaps", "gated"),
        ("&aiter_features=,", "aiter_features"),
        ("&aiter_features=gate_modes", "aiter_features"),
    ],
)
def test_get_refuses_what_it_does_not_understand(client: Client, extra: str, field: str) -> None:
    response = client.get(f"/v1/resolve?model=openai/gpt-oss-20b&arch=gfx950{extra}")
    assert response.status_code == 422
    assert [fault["field"] for fault in response.json()["problems"]] == [field]


def test_a_batch_answers_each_query_for_itself(client: Client) -> None:
    queries = [FIELDS, {**FIELDS, "arch": "gfx942"}, {**FIELDS, "tp": 0}, 7, FIELDS]
    results = client.post("/v1/resolve/batch", json={"queries": queries}).json()["results"]
    kinds = [result.get("problem", {}).get("type", "decision").rpartition(":")[2] for result in results]
    assert kinds == ["decision", "no-recipe", "invalid-input", "invalid-input", "decision"]
    assert results[0] == results[4] == {"decision": client.post("/v1/resolve", json=FIELDS).json()}


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"queries": []},
        {"queries": 5},
        {"queries": [FIELDS], "more": 1},
        {"queries": [FIELDS] * 1001},
        {"queries": [{**FIELDS, "tokens": [1] * 256}] * 40},
    ],
)
def test_what_is_not_a_batch_is_refused_whole(client: Client, body: object) -> None:
    response = client.post("/v1/resolve/batch", json=body)
    assert (response.status_code, response.json()["problems"][0]["field"]) == (422, "queries")


def test_answers_are_kept_within_their_budget() -> None:
    answers = Answers(Registry.default(), budget=20_000)
    first = answers.get(Query.parse(FIELDS))
    assert answers.get(Query.parse({**FIELDS, "env": {}})) is first
    for tp in (1, 2, 4, 5):
        answers.get(Query.parse({**FIELDS, "tp": tp, "tokens": [1]}))
    again = answers.get(Query.parse(FIELDS))
    assert again is not first
    assert again == first


def test_the_order_of_the_environment_does_not_count() -> None:
    answers = Answers(Registry.default())
    one = answers.get(Query.parse({**FIELDS, "env": {"A": "1", "B": "2"}}))
    assert answers.get(Query.parse({**FIELDS, "env": {"B": "2", "A": "1"}})) is one

"""Checking over HTTP: one observation, many, and every deployment that has reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import validator_for

from preshuffle.api.answers.reports import Reports
from preshuffle.api.app import create_app
from preshuffle.api.routes.check import EXAMPLE
from preshuffle.api.settings import Settings
from preshuffle.registry import Observation, Registry, Report
from support.service.server import OBSERVATION, Client

NOTHING: dict[str, Any] = {"query": OBSERVATION["query"]}
JUDGED_NOW = {"verdict_source": "current", "rechecking": False}


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default()))


def put(client: Client, observation: dict[str, Any], replica: int = 0, layers: str = "0-35") -> None:
    body = {"groups": [{"layers": layers, "observation": observation}]}
    assert client.put(f"/v1/deployments/prod?replica={replica}", json=body).status_code in (200, 201)


@pytest.mark.parametrize("observation", [EXAMPLE, OBSERVATION, NOTHING])
def test_the_report_is_that_of_the_registry(client: Client, observation: dict[str, Any]) -> None:
    expected = Registry.default().check(Observation.parse(observation))
    for _ in range(2):
        answer = client.post("/v1/check", json=observation)
        assert (answer.status_code, Report.model_validate(answer.json())) == (200, expected)
    decided = client.post("/v1/check?decide=true", json=observation).json()
    assert decided["decision"] == client.post("/v1/resolve", json=observation["query"]).json()


def test_bad_input_is_a_problem(client: Client) -> None:
    wrong = {**EXAMPLE, "applied": {"gate_mode": "interleaved"}}
    answer = client.post("/v1/check", json=wrong)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    (fault,) = answer.json()["problems"]
    assert (fault["field"], fault["valid"]) == ("applied.gate_mode", ["separated", "interleave"])
    assert client.post("/v1/check", json={}).status_code == 422
    assert client.post("/v1/check?decide=perhaps", json=EXAMPLE).status_code == 422


def test_a_batch_answers_each(client: Client) -> None:
    answer = client.post("/v1/check/batch", json={"observations": [EXAMPLE, {"query": 5}, OBSERVATION]})
    first, second, third = answer.json()["results"]
    assert first["report"] == client.post("/v1/check", json=EXAMPLE).json()
    assert second["problem"]["status"] == 422
    assert third["report"]["verdict"] == client.post("/v1/check", json=OBSERVATION).json()["verdict"]
    many = {**EXAMPLE, "query": {**EXAMPLE["query"], "tokens": [1] * 200}}
    body: object
    for body in ({}, [], {"observations": []}, {"observations": [many] * 51}):
        assert client.post("/v1/check/batch", json=body).status_code == 422


def test_the_document_shows_the_design_s_example(client: Client) -> None:
    document = client.get("/openapi.json").json()
    body = document["paths"]["/v1/check"]["post"]["requestBody"]["content"]["application/json"]
    assert body["example"] == EXAMPLE
    forms = [form["$ref"].rpartition("/")[2] for form in body["schema"]["anyOf"]]
    assert forms == ["Observation", "ReplicaReport"]
    assert set(forms) <= set(document["components"]["schemas"])
    assert "503" in document["paths"]["/v1/deployments/{name}/health"]["get"]["responses"]


def test_a_deployment_is_as_bad_as_its_worst_replica(client: Client) -> None:
    put(client, NOTHING)
    put(client, EXAMPLE, replica=1)
    shown = client.get("/v1/deployments/prod").json()
    assert [replica["verdict"] for replica in shown["replicas"]] == ["unknown", "mismatch"]
    assert shown["verdict"] == "mismatch"
    (group,) = shown["replicas"][1]["groups"]
    assert group["verdict"] == "mismatch"
    assert group["findings"] == client.post("/v1/check", json=EXAMPLE).json()["findings"]
    (listed,) = client.get("/v1/deployments").json()["deployments"]
    assert listed["verdict"] == "mismatch"
    assert [(line["verdict"], bool(line["findings"])) for line in listed["groups"]] == [
        ("unknown", False),
        ("mismatch", True),
    ]


def test_health_is_503_while_wrong(client: Client) -> None:
    url = "/v1/deployments/prod/health"
    assert client.get(url).status_code == 404
    put(client, NOTHING)
    answer = client.get(url)
    assert (answer.status_code, answer.json()) == (200, {"verdict": "unknown", "state": "unknown", **JUDGED_NOW})
    put(client, EXAMPLE, replica=1)
    answer = client.get(url)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    problem = answer.json()
    assert problem["type"].endswith(":unhealthy-deployment")
    assert (problem["verdict"], problem["codes"]) == ("mismatch", ["layout_mismatch"])
    assert client.delete("/v1/deployments/prod?replica=1").status_code == 204
    assert client.get(url).status_code == 200


def test_the_page_says_what_is_wrong_and_what_to_do(client: Client) -> None:
    put(client, EXAMPLE)
    put(client, NOTHING, replica=1)
    listed = client.get("/").text
    assert 'class="verdict mismatch"' in listed
    assert 'class="verdict unknown"' in listed
    page = client.get("/deployments/prod").text
    found = page.index("<strong>layout_mismatch</strong>")
    assert found < page.index("<h3>Tensors</h3>")
    assert "<b>Fix:</b> pass gate_mode=interleave" in page
    assert "Too little was observed to judge" in page


def test_what_is_told_cannot_write_markup(client: Client) -> None:
    script = "<script>alert(1)</script>"
    told = {**EXAMPLE, "applied": {**EXAMPLE["applied"], "kernels": [{"backend": "aiter", "stage1": script}]}}
    put(client, told)
    assert script not in client.get("/").text
    assert script not in client.get("/deployments/prod").text


def test_reports_are_cached_up_to_a_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry.load()
    asked: list[Observation] = []
    check = registry.check

    def noted(observation: Observation) -> Report:
        asked.append(observation)
        return check(observation)

    monkeypatch.setattr(registry, "check", noted)
    reports = Reports(capacity=1)
    seen, other = Observation.parse(EXAMPLE), Observation.parse(NOTHING)
    for observation in (seen, seen, other, other, seen):
        reports.get(registry, observation)
    assert asked == [seen, other, seen]


def test_what_was_told_is_not_what_was_left_out() -> None:
    registry, reports = Registry.load(), Reports()
    told = Observation.parse({**NOTHING, "query": {**NOTHING["query"], "tokens": [1]}})
    default = Observation.parse(NOTHING)
    for observation in (told, default):
        assert reports.get(registry, observation) == registry.check(observation)


def test_a_replica_s_report_is_checked_before_it_is_sent(client: Client) -> None:
    groups = [{"layers": "0-3", "observation": EXAMPLE}, {"layers": "4", "observation": NOTHING}]
    body = {"groups": groups}
    answer = client.post("/v1/check", json=body)
    assert (answer.status_code, answer.json()["verdict"]) == (200, "mismatch")
    assert [group["layers"] for group in answer.json()["groups"]] == ["0-3", "4"]
    expected = [client.post("/v1/check", json=observation).json() for observation in (EXAMPLE, NOTHING)]
    assert [group["report"] for group in answer.json()["groups"]] == expected
    decided = client.post("/v1/check?decide=true", json=body).json()
    assert all(group["report"]["decision"] for group in decided["groups"])
    assert client.get("/v1/deployments").json()["deployments"] == []
    for wrong in ([], [{"layers": "0-3"}], [groups[0]] * 2):
        refused = client.post("/v1/check", json={"groups": wrong})
        assert (refused.status_code, "groups" in refused.json()["detail"]) == (422, True)


def test_schemas_are_published_with_their_examples(client: Client) -> None:
    links = client.get("/v1/schemas").json()["schemas"]
    assert [link["name"] for link in links] == ["query", "observation", "replica-report", "conformance-report"]
    for link in links:
        answer = client.get(link["path"])
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/schema+json")
        (example,) = answer.json()["examples"]
        validator_for(answer.json()).validate(example)
    (report,) = client.get("/v1/schemas/replica-report").json()["examples"]
    assert client.put("/v1/deployments/prod", json=report).status_code == 201
    missing = client.get("/v1/schemas/reports")
    assert (missing.status_code, missing.json()["type"]) == (404, "urn:preshuffle:problem:unknown-schema")

"""Conformance reports over HTTP: kept per AITER build, shown with deployments and plans, guarded by their digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from preshuffle.api.app import create_app
from preshuffle.api.errors import QuotaError
from preshuffle.api.rollout import Candidate
from preshuffle.api.rollout.plan import plan
from preshuffle.api.settings import Settings
from preshuffle.api.store import Store, conformance_store
from preshuffle.api.web.access import need_of
from preshuffle.api.web.problem import KINDS, URN
from preshuffle.registry import Registry
from preshuffle.registry.values.conformance import ConformanceReport
from support.service.server import REPORT, Client

BUILD = "0.1.20.post1"
PATH = f"/v1/conformance/{BUILD}"


def made(build: str = BUILD, version: str | None = BUILD, agreed: int = 7294, **changes: Any) -> dict[str, Any]:
    claims = {"bytes": {"tried": 185, "agreed": 185}, "kernel_choices": {"tried": 7294, "agreed": agreed}}
    fields: dict[str, Any] = {
        "preshuffle": "0.1.0",
        "registry_digest": Registry.default().digest,
        "aiter": {"id": build, "version": version, "digest": f"sha256:{'1' * 64}", "place": "installed"},
        "claims": claims,
    }
    return ConformanceReport.of(**{**fields, **changes}).model_dump(mode="json")


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default()))


def problem(response: httpx.Response, kind: str) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert (body["type"], response.status_code) == (URN + kind, KINDS[kind][0]), body
    return body


def test_a_report_is_kept_and_given_back(client: Client) -> None:
    report = made()
    stored = client.put(PATH, json=report)
    assert stored.status_code == 201, stored.text
    assert stored.json()["summary"] == "185 of 185 byte cases, 7,294 of 7,294 kernel choices"
    again = client.put(PATH, json=report)
    assert (again.status_code, again.json()["changed"]) == (200, False)
    found = client.get(PATH)
    assert found.json() == report
    assert found.headers["etag"] == f'"{report["digest"]}"'
    assert client.get(PATH, headers={"If-None-Match": found.headers["etag"]}).status_code == 304


def test_the_list_names_every_build(client: Client) -> None:
    client.put(PATH, json=made())
    client.put("/v1/conformance/gabcdef012345", json=made("gabcdef012345", None, 7000))
    answer = client.get("/v1/conformance")
    assert [(item["build"], item["verdict"]) for item in answer.json()["reports"]] == [
        (BUILD, "agrees"),
        ("gabcdef012345", "disagrees"),
    ]
    known = {"If-None-Match": answer.headers["etag"]}
    assert client.get("/v1/conformance", headers=known).status_code == 304
    client.put(PATH, json=made(agreed=7293))
    assert client.get("/v1/conformance", headers=known).status_code == 200


def test_another_report_replaces_it_under_its_etag(client: Client) -> None:
    first = client.put(PATH, json=made()).headers["etag"]
    better = made(agreed=7290)
    problem(client.put(PATH, json=better, headers={"If-Match": '"sha256:other"'}), "precondition-failed")
    assert client.put(PATH, json=better, headers={"If-Match": first}).status_code == 200
    assert client.get(PATH).json()["claims"]["kernel_choices"]["agreed"] == 7290
    (event,) = [item for item in client.get("/v1/history").json()["events"] if item["action"] == "conformance"][:1]
    assert event["subject"] == BUILD
    assert "held against AITER" in client.get("/changes").text


def test_what_is_no_such_report_is_refused(client: Client) -> None:
    spoilt = made() | {"complete": True}
    assert "digest" in problem(client.put(PATH, json=spoilt), "invalid-input")["detail"]
    assert "aiter.id" in problem(client.put("/v1/conformance/0.1.19", json=made()), "invalid-input")["detail"]
    assert "unknown field" in problem(client.put(PATH, json=made() | {"note": "x"}), "invalid-input")["detail"]
    problem(client.put(PATH, content=b"{", headers={"Content-Type": "application/json"}), "malformed-json")
    problem(client.put(PATH, content=b"<a/>", headers={"Content-Type": "text/xml"}), "unsupported-media-type")
    large = b'"' + b"x" * (5 << 20) + b'"'
    problem(client.put(PATH, content=large, headers={"Content-Type": "application/json"}), "body-too-large")
    problem(client.get("/v1/conformance/0.1.19"), "unknown-conformance")
    problem(client.get("/v1/conformance/.."), "not-found")
    assert client.get("/v1/conformance").json() == {"reports": []}


def test_keeping_one_is_a_change_for_operators() -> None:
    need = need_of("PUT", PATH)
    assert (need.kind, need.deployment) == ("change", None)
    assert need_of("GET", PATH).kind == "read"


def test_a_deployment_says_whether_its_build_was_checked(client: Client) -> None:
    client.put("/v1/deployments/prod", json={**REPORT, "aiter_build": "v0.1.20.post1"})
    client.put("/v1/deployments/prod?replica=1", json={**REPORT, "aiter_build": "0.1.19"})
    assert client.get("/deployments/prod").text.count("nobody has held the book against this build") == 2
    client.put(PATH, json=made())
    text = client.get("/deployments/prod").text
    assert "185 of 185 byte cases, 7,294 of 7,294 kernel choices</a>" in text
    assert text.count("nobody has held the book against this build") == 1
    client.put(PATH, json=made(agreed=7000))
    assert "contradicts the book: 185 of 185" in client.get("/deployments/prod").text


def test_a_deployment_says_which_engine_was_run(client: Client) -> None:
    claims = {"engine": {"tried": 117, "agreed": 117, "notes": ["known fault, 2 layers: engine: a pad of 64"]}}
    stored = client.put(PATH, json=made(claims=claims, engine="vllm@0.33.0"))
    assert stored.json()["summary"] == "117 of 117 engine layers of vllm@0.33.0"
    client.put("/v1/deployments/prod", json={**REPORT, "aiter_build": BUILD})
    assert "117 of 117 engine layers of vllm@0.33.0</a>" in client.get("/deployments/prod").text


def test_the_store_keeps_reports_on_both_databases(store: Store) -> None:
    report = ConformanceReport.model_validate(made())
    assert conformance_store.put(store, report, "me", lambda digest: None) is None
    assert conformance_store.get(store, BUILD) == report
    found = conformance_store.find(store, ["0.1.20-1", "0.1.21", "no version at all"])
    assert {name: item and item.build for name, item in found.items()} == {
        "0.1.20-1": BUILD,
        "0.1.21": None,
        "no version at all": None,
    }
    assert [item.build for item in conformance_store.listing(store)] == [BUILD]


def test_more_builds_than_there_can_be_are_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance_store, "MAX_REPORTS", 1)
    for build, status in (("0.1.18", None), ("0.1.18", None), ("0.1.19", "limit is 1")):
        report = ConformanceReport.model_validate(made(build, build))
        if status is None:
            conformance_store.put(store, report, "me", lambda digest: None)
        else:
            with pytest.raises(QuotaError, match=status):
                conformance_store.put(store, report, "me", lambda digest: None)


def test_a_plan_warns_of_an_aiter_without_a_report(store: Store) -> None:
    candidate = Candidate.parse({"aiter": BUILD})
    (warning,) = plan(store, Registry.default(), candidate).warnings
    assert warning.startswith(f"nobody has held the book against AITER {BUILD}")
    conformance_store.put(store, ConformanceReport.model_validate(made()), "me", lambda digest: None)
    assert plan(store, Registry.default(), candidate).warnings == ()
    conformance_store.put(store, ConformanceReport.model_validate(made(agreed=1)), "me", lambda digest: None)
    (warning,) = plan(store, Registry.default(), candidate).warnings
    assert "contradicts the book: 185 of 185 byte cases, 1 of 7,294" in warning

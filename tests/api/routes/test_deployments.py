"""Deployments over HTTP: what was told comes back, beside what the registry decides for it."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.app import create_app
from preshuffle.api.fleet.deployments import Beat
from preshuffle.api.fleet.layers import Span, first_overlap, parse_layers
from preshuffle.api.settings import Settings
from preshuffle.api.store.store import Store
from preshuffle.api.upkeep.heartbeats import Heartbeats
from preshuffle.registry import Registry
from support.service.server import OBSERVATION, REPORT, Client
from support.service.stores import put, silence

URL = "/v1/deployments/prod"


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default()))


def report(**changes: Any) -> dict[str, Any]:
    return {**REPORT, **changes}


def groups(*layers: str) -> list[dict[str, Any]]:
    return [{"layers": text, "observation": OBSERVATION} for text in layers]


def test_what_was_told_comes_back_with_the_decision_of_now(client: Client) -> None:
    stored = client.put(URL, json=REPORT)
    assert (stored.status_code, stored.json()["changed"], stored.json()["replica"]) == (201, True, 0)
    shown = client.get(URL)
    assert shown.headers["etag"] == stored.headers["etag"] == f'"{stored.json()["revision"]}"'
    (replica,) = shown.json()["replicas"]
    (group,) = replica["groups"]
    assert (replica["node"], group["layers"], group["observation"]) == ("node-1", "0-35", OBSERVATION)
    assert group["decision"] == client.post("/v1/resolve", json=OBSERVATION["query"]).json()
    assert group["problem"] is None
    same = {"applied": "sep16", "decided": "sep16", "same_bytes": True, "same_shape": None}
    assert group["layouts"]["w13_weight"] == same
    assert group["layouts"]["w2_weight"] == {**same, "applied": None, "same_bytes": None}


def test_the_same_report_twice_changes_nothing(client: Client) -> None:
    first = client.put(URL, json=REPORT).json()
    again = client.put(URL, json={"node": "node-1", **REPORT})
    assert (again.status_code, again.json()) == (200, {**first, "changed": False})
    other = client.put(URL, json=report(node="node-2"))
    assert (other.status_code, other.json()["changed"]) == (200, True)
    assert other.json()["revision"] > first["revision"]
    assert other.json()["created_at"] == first["created_at"]


def test_the_receipt_carries_verdict_codes_and_fixes(client: Client) -> None:
    right = client.put(URL, json=REPORT).json()
    assert (right["verdict"], right["codes"], right["fixes"]) == ("ok", [], [])
    applied = {"gate_mode": "interleave", "tensors": {"w13_weight": {"layout": "sep16", "is_shuffled": True}}}
    wrong = report(groups=[*groups("0"), {"layers": "1", "observation": {**OBSERVATION, "applied": applied}}])
    for _ in range(2):  # stored, then unchanged
        reply = client.put(URL, json=wrong).json()
        assert (reply["verdict"], reply["codes"][0]) == ("mismatch", "layout_mismatch")
        assert len(set(reply["codes"])) == len(reply["codes"])
        (group,) = [group for group in client.get(URL).json()["replicas"][0]["groups"] if group["layers"] == "1"]
        assert next(one["fix"] for one in group["findings"] if one["severity"] == "error") in reply["fixes"]


def test_replicas_are_kept_apart_and_shown_together(client: Client) -> None:
    client.put(URL, json=REPORT)
    wrong = {**OBSERVATION, "applied": {"tensors": {"w13_weight": {"layout": "gui16"}}}}
    for replica in (1, 2):
        client.put(f"{URL}?replica={replica}", json=report(groups=[{"layers": "0-35", "observation": wrong}]))
    (listed,) = client.get("/v1/deployments").json()["deployments"]
    assert listed["replicas"] == [0, 1, 2]
    lines = [(line["replicas"], line["recipe"], line["w13_weight"]["same_bytes"]) for line in listed["groups"]]
    assert lines == [([0], "mxfp4.sep16", True), ([1, 2], "mxfp4.sep16", False)]
    assert client.delete(f"{URL}?replica=7").status_code == 404
    assert client.delete(f"{URL}?replica=1").status_code == 204
    assert [replica["replica"] for replica in client.get(URL).json()["replicas"]] == [0, 2]
    assert client.delete(URL).status_code == 204
    assert client.get(URL).status_code == 404


def test_a_change_can_be_made_to_depend_on_the_revision(client: Client) -> None:
    tag = client.put(URL, json=REPORT).headers["etag"]
    changed = client.put(URL, json=report(node="b"), headers={"If-Match": f'"0", {tag}'})
    assert changed.status_code == 200
    late = client.put(URL, json=report(node="c"), headers={"If-Match": tag})
    assert (late.status_code, late.headers["etag"]) == (412, changed.headers["etag"])
    assert client.get(URL).json()["replicas"][0]["node"] == "b"
    assert client.delete(URL, headers={"If-Match": tag}).status_code == 412
    assert client.delete(URL, headers={"If-Match": "*"}).status_code == 204


def test_a_revision_is_never_used_again(client: Client) -> None:
    before = client.put(URL, json=REPORT).json()["revision"]
    client.delete(URL)
    assert client.put(URL, json=REPORT).json()["revision"] > before


def test_a_query_that_no_recipe_answers_is_stored_with_its_problem(client: Client) -> None:
    observation = {
        "query": {"model": "m", "arch": "gfx942"},
        "applied": {"tensors": {"w13_weight": {"layout": "mine"}}},
    }
    client.put(URL, json={"groups": [{"layers": "0", "observation": observation}]})
    (group,) = client.get(URL).json()["replicas"][0]["groups"]
    assert group["decision"] is None
    assert group["problem"]["type"] == "urn:preshuffle:problem:no-recipe"
    assert group["layouts"]["w13_weight"]["applied"] == "mine"


def test_a_list_comes_in_pages(client: Client) -> None:
    names = [f"d{index}" for index in range(7)]
    for name in reversed(names):
        client.put(f"/v1/deployments/{name}", json=REPORT)
    seen: list[str] = []
    cursor: str | None = None
    pages = 0
    while pages == 0 or cursor:
        page = client.get(
            "/v1/deployments", params={"limit": 3, "sort": "name", **({"cursor": cursor} if cursor else {})}
        ).json()
        seen += [deployment["name"] for deployment in page["deployments"]]
        cursor = page["next"]
        pages += 1
    assert (seen, pages) == (names, 3)
    assert client.get("/v1/deployments?limit=7").json()["next"] is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"groups": []}, "groups"),
        ({"groups": groups("0-3", "3")}, "(whole)"),
        ({"groups": groups("3-1")}, "groups.0.layers"),
        ({"groups": groups("1,1")}, "groups.0.layers"),
        ({"groups": groups("1;2")}, "groups.0.layers"),
        ({"groups": groups("")}, "groups.0.layers"),
        ({"groups": groups("0"), "ttl_s": 0}, "ttl_s"),
        ({"groups": groups("0"), "nodes": "x"}, "nodes"),
        ({"groups": groups("0"), "registry_digest": "sha256:0"}, "registry_digest"),
        ({"groups": [{"layers": "0", "observation": {"query": {"model": "m", "arch": "A"}}}]}, None),
    ],
)
def test_a_wrong_report_is_refused_and_nothing_is_stored(client: Client, body: Any, field: str | None) -> None:
    response = client.put(URL, json=body)
    assert response.status_code == 422
    assert response.json()["problems"][0]["field"] == (field or "groups.0.observation.query.arch")
    assert client.get("/v1/deployments").json() == {"deployments": [], "next": None}


@pytest.mark.parametrize("number", ["1e999", "-1E+400", "9" * 400 + ".0"])
def test_a_number_that_is_not_finite_is_refused(client: Client, number: str) -> None:
    applied = {"swiglu_limit": "NUMBER"}
    body = json.dumps({"groups": [{"layers": "0", "observation": {**OBSERVATION, "applied": applied}}]})
    content = body.replace('"NUMBER"', number)
    response = client.put(URL, content=content, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["type"]) == (400, "urn:preshuffle:problem:malformed-json")


def test_layers_are_ranges_that_do_not_meet() -> None:
    assert parse_layers("5,0-2") == (Span(0, 2), Span(5, 5))
    assert first_overlap([parse_layers("0-2,5"), parse_layers("3-4,6-99999")]) is None
    assert first_overlap([parse_layers("0-9"), parse_layers("12"), parse_layers("9-10")]) == (9, 0, 2)


def test_a_heartbeat_is_answered_once_it_is_written(client: Client) -> None:
    unknown = client.post(f"{URL}/heartbeat?replica=1")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "urn:preshuffle:problem:unknown-deployment")
    client.put(f"{URL}?replica=1", json=REPORT)
    beat = client.post(f"{URL}/heartbeat?replica=1").json()
    assert (beat["name"], beat["replica"]) == ("prod", 1)
    assert client.get(URL).json()["seen_at"] == beat["seen_at"]
    assert client.post(f"{URL}/heartbeat").status_code == 404


def test_what_was_decided_otherwise_when_it_was_loaded_has_drifted(client: Client) -> None:
    now = client.post("/v1/resolve", json=OBSERVATION["query"]).json()["decision_digest"]
    for digest, state in ((now, "ok"), (f"sha256:{'0' * 64}", "drifted")):
        told = {"layers": "0-35", "observation": OBSERVATION, "decision_digest": digest}
        client.put(URL, json=report(groups=[told]))
        shown = client.get(URL).json()
        assert (shown["verdict"], shown["state"]) == ("ok", state)
        assert [one["state"] for one in client.get("/v1/deployments").json()["deployments"]] == [state]
    health = {"verdict": "ok", "state": "drifted", "verdict_source": "current", "rechecking": False}
    assert client.get(f"{URL}/health").json() == health


def test_a_replica_that_is_silent_is_stale(client: Client, tmp_path: Path) -> None:
    client.put(URL, json=report(ttl_s=3600))
    assert client.get(URL).json()["state"] == "ok"
    store = Store(f"sqlite:///{tmp_path}/store.db")
    silence(store, "prod")
    store.close()
    assert client.get(URL).json()["state"] == "stale"
    assert client.get("/v1/deployments?state=stale").json()["deployments"][0]["state"] == "stale"
    client.post(f"{URL}/heartbeat")
    assert client.get(URL).json()["state"] == "ok"


def test_a_state_that_is_none_is_refused(client: Client) -> None:
    answer = client.get("/v1/deployments?state=ok,fine")
    assert (answer.status_code, answer.json()["problems"][0]["field"]) == (422, "state")


def test_history_comes_in_pages_and_says_who(client: Client) -> None:
    assert client.get(f"{URL}/history").status_code == 404
    for node in ("a", "b", "c"):
        client.put(URL, json=report(node=node))
    client.delete(URL)
    first = client.get(f"{URL}/history?limit=3").json()
    assert [event["action"] for event in first["events"]] == ["forget", "report", "report"]
    assert {event["who"] for event in first["events"]} == {"anonymous at 127.0.0.1"}
    rest = client.get(f"{URL}/history?limit=3&cursor={first['next']}").json()
    assert [event["state_before"] for event in rest["events"]] == [None]
    assert rest["next"] is None
    assert client.get("/v1/history?since=2999-01-01T00:00:00Z").json()["events"] == []
    assert client.get("/v1/history?since=yesterday").status_code == 422


def test_many_heartbeats_share_their_commits(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store.db").create()
    for number in range(50):
        put(store, "many", number)
    groups: list[int] = []
    write = store.beat

    def counted(replica_keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Beat]:
        groups.append(1)
        return write(replica_keys)

    store.beat = counted  # type: ignore[method-assign]

    async def beat_all() -> list[Beat | None]:
        heartbeats = Heartbeats(store)
        return await asyncio.gather(*(heartbeats.beat("many", number) for number in range(60)))

    beats = asyncio.run(beat_all())
    assert [beat is not None for beat in beats] == [True] * 50 + [False] * 10
    assert len(groups) <= 3
    store.close()

"""The fleet over HTTP: order, filters, groups, and what operators say of deployments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.app import create_app
from preshuffle.api.settings import Settings
from preshuffle.api.store.schema import replica_facts
from preshuffle.api.store.state_changes import claim_state_changes
from preshuffle.api.store.store import Store
from preshuffle.registry import Registry
from support.service.server import OBSERVATION, Client
from support.service.stores import silence

WRONG = {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "gui16"}}}
LIST = "/v1/deployments"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fleet")


@pytest.fixture(scope="module")
def service(folder: Path) -> Client:
    return Client(create_app(Settings(db=f"sqlite:///{folder}/store.db"), Registry.default()))


@pytest.fixture
def db(folder: Path) -> str:
    return f"sqlite:///{folder}/store.db"


@pytest.fixture
def client(service: Client, db: str) -> Client:
    """Return the service with an empty store."""
    store = Store(db)
    with store.transaction(write=True) as connection:
        for table in ("deployments", "history"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    claim_state_changes(store)
    store.close()
    return service


def put(
    client: Client, name: str, replica: int = 0, applied: Any = None, query: Any = None, **more: Any
) -> dict[str, Any]:
    observation = {
        "query": {**OBSERVATION["query"], **(query or {})},
        "applied": OBSERVATION["applied"] if applied is None else applied,
    }
    body = {"groups": [{"layers": "0-35", "observation": observation}], "node": "n1", **more}
    answer = client.put(f"{LIST}/{name}?replica={replica}", json=body)
    assert answer.status_code in (200, 201), answer.text
    receipt: dict[str, Any] = answer.json()
    return receipt


def names(client: Client, query: str = "") -> list[str]:
    answer = client.get(f"{LIST}?{query}")
    assert answer.status_code == 200, answer.text
    return [one["name"] for one in answer.json()["deployments"]]


def in_hours(hours: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()


def test_the_worst_come_first_then_the_longest_in_that_state(client: Client, db: str) -> None:
    for name, applied in (("c-wrong", WRONG), ("a-unknown", {}), ("b-wrong", WRONG), ("d-ok", None), ("e-late", None)):
        put(client, name, applied=applied, ttl_s=3600)
    put(client, "c-wrong", applied=WRONG, node="elsewhere", ttl_s=3600)  # the same state: since when stays
    store = Store(db)
    silence(store, "e-late")
    store.close()
    assert names(client) == ["c-wrong", "b-wrong", "e-late", "a-unknown", "d-ok"]
    assert names(client, "sort=-state") == ["d-ok", "a-unknown", "e-late", "b-wrong", "c-wrong"]
    assert names(client, "sort=name") == sorted(names(client))
    assert names(client, "sort=-name") == sorted(names(client), reverse=True)
    assert names(client, "sort=since")[:2] == ["e-late", "c-wrong"]
    listed = {one["name"]: one for one in client.get(LIST).json()["deployments"]}
    late = listed["e-late"]
    assert (late["state"], late["cause"][:13]) == ("stale", "silent since ")
    assert datetime.fromisoformat(late["state_since"]) < datetime.now(UTC) - timedelta(hours=20)
    assert listed["c-wrong"]["cause"].startswith("w13_weight: bytes are gui16; ")
    assert listed["c-wrong"]["codes"][0] == "layout_mismatch"
    assert (listed["d-ok"]["cause"], listed["d-ok"]["codes"]) == (None, [])


def test_since_is_when_the_state_began(client: Client, db: str) -> None:
    put(client, "a", applied=WRONG)
    store = Store(db)
    with store.transaction(write=True) as connection:
        connection.execute(replica_facts.update().values(since_ms=1_000_000_000_000))
    put(client, "a", applied=WRONG, node="n2")
    (one,) = client.get(LIST).json()["deployments"]
    assert one["state_since"] == client.get(f"{LIST}/a").json()["state_since"] == "2001-09-09T01:46:40Z"
    put(client, "a")
    (one,) = client.get(LIST).json()["deployments"]
    assert one["state_since"] > "2001-09-10"
    store.close()


def test_filters_are_by_what_replicas_run(client: Client) -> None:
    put(client, "plain", labels={"team": "a", "tier": "prod"}, owner="ann")
    put(client, "sg", query={"engine": "sglang@0.5.9", "tp": 8, "ep": 8}, node="n10", labels={"team": "b"})
    put(client, "vl", query={"engine": "vllm@0.20.0"}, node="m2", labels={"team": "a%"})
    put(client, "two", applied=WRONG, node="m1")
    put(client, "two", 1, query={"engine": "sglang@0.5.10"}, node="n1")
    cases = {
        "node=n1": ["plain", "two"],
        "node=n1*": ["plain", "sg", "two"],
        "node=n10,m2": ["sg", "vl"],
        "node=N1&engine=sglang": ["two"],
        "node=m1&engine=sglang": [],  # no one replica has both
        "engine=sglang": ["sg", "two"],
        "engine=sglang@0.5.9": ["sg"],
        "engine=sglang@0.5.1*": ["two"],
        "engine=sg": [],
        "model=openai/gpt-oss-120b": ["plain", "sg", "two", "vl"],
        "model=gpt-oss-120b&name=v": ["vl"],
        "model=openai/gpt-oss": [],
        "arch=MI355X": ["plain", "sg", "two", "vl"],
        "arch=gfx942": [],
        "code=layout_mismatch": ["two"],
        "label=team": ["plain", "sg", "vl"],
        "label=team=a": ["plain"],
        "label=team=a%25": ["vl"],
        "label=team=a&label=tier=prod": ["plain"],
        "label=team=b&label=tier=prod": [],
        "owner=ann": ["plain"],
        "state=mismatch&node=n1": ["two"],
        "state=ok&node=m1": [],
    }
    assert {query: names(client, f"{query}&sort=name") for query in cases} == cases
    sg = client.get(f"{LIST}?name=sg").json()["deployments"][0]
    assert (sg["nodes"], sg["engines"], sg["parallel"]) == (["n10"], ["sglang@0.5.9"], ["TP8/EP8"])
    assert (sg["models"], sg["archs"]) == (["openai/gpt-oss-120b"], ["gfx950"])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("sort=wonderful", "sort"),
        ("sort=label", "sort"),
        ("group_by=seen", "group_by"),
        ("code=layout_mismtch", "code"),
        ("silenced=perhaps", "silenced"),
        ("cursor=WzEsImEiXQ&sort=name", "cursor"),
        ("cursor=WyJhIiwgImEiXQ", "cursor"),
        ("cursor=bnVsbA", "cursor"),
        ("cursor=W3RydWUsImEiXQ", "cursor"),
        ("cursor=WzEsIlx1ZDgwMCJd", "cursor"),  # half of a character
        ("sort=label:a%00", "sort"),
        ("group_by=label:%00", "group_by"),
    ],
)
def test_what_is_no_parameter_is_refused(client: Client, query: str, field: str) -> None:
    answer = client.get(f"{LIST}?{query}")
    assert (answer.status_code, answer.json()["problems"][0]["field"]) == (422, field)


@pytest.mark.parametrize(
    "sort",
    ["state", "-state", "since", "name", "-name", "node", "-engine", "label:team", "-label:team", "seen", "owner"],
)
def test_every_order_comes_in_pages(client: Client, sort: str) -> None:
    for number in range(5):
        engine = {"engine": f"vllm@0.{number % 2 + 20}.0"} if number else None
        labels = {"team": f"t{number % 2}"} if number % 3 else {}
        put(client, f"d{number}", query=engine, node=f"n{number % 3}", labels=labels)
    whole, cursor, paged = names(client, f"sort={sort}"), None, []
    while cursor != "":
        page = client.get(f"{LIST}?sort={sort}&limit=2" + (f"&cursor={cursor}" if cursor else "")).json()
        paged += [one["name"] for one in page["deployments"]]
        cursor = page["next"] or ""
    assert paged == whole
    assert sorted(paged) == ["d0", "d1", "d2", "d3", "d4"]
    if sort == "label:team":
        assert [name for name in paged if name in ("d0", "d3")] == paged[-2:]  # without the label: last


def test_groups_count_by_state(client: Client) -> None:
    put(client, "a", applied=WRONG, labels={"team": "x"})
    put(client, "b", labels={"team": "x"})
    put(client, "b", 1, node="n2")
    put(client, "c")
    client.put(f"{LIST}/c/silence", json={"until": in_hours(1)})
    assert "groups" not in client.get(LIST).json()
    answer = client.get(f"{LIST}?group_by=label:team").json()
    assert answer["groups"] == [
        {"value": "x", "deployments": 2, "states": {"mismatch": 1, "ok": 1}, "silenced": 0},
        {"value": "", "deployments": 1, "states": {}, "silenced": 1},
    ]
    assert len(answer["deployments"]) == 3
    by_node = client.get(f"{LIST}?group_by=node&state=ok").json()["groups"]
    assert {group["value"]: group["deployments"] for group in by_node} == {"n1": 2, "n2": 1}
    by_state = client.get(f"{LIST}?group_by=state").json()["groups"]
    assert {group["value"]: group["deployments"] for group in by_state} == {"mismatch": 1, "ok": 2}


def test_labels_stay_until_another_report_or_operator_says_otherwise(client: Client) -> None:
    put(client, "a", labels={"team": "x", "tier": "prod"}, owner="ann", link="https://example.org/d")
    put(client, "a", 1)
    one = client.get(f"{LIST}/a").json()
    assert (one["labels"], one["owner"]) == ({"team": "x", "tier": "prod"}, "ann")
    changed = client.request("PATCH", f"{LIST}/a", json={"labels": {"team": "y"}, "link": None})
    assert changed.json()["labels"] == {"team": "y"}
    listed = client.get(LIST).json()["deployments"][0]
    assert (listed["labels"], listed["owner"], listed["link"]) == ({"team": "y"}, "ann", None)
    event = client.get(f"{LIST}/a/history").json()["events"][0]
    assert event["action"] == "describe"
    fields = {change["field"]: (change["before"], change["after"]) for change in event["changes"]}
    assert fields == {"labels.team": ("x", "y"), "labels.tier": ("prod", None), "link": ("https://example.org/d", None)}


@pytest.mark.parametrize(
    "body",
    [
        {"labels": {"": "x"}},
        {"labels": {"a b": "x"}},
        {"labels": {"a": "x" * 129}},
        {"labels": {f"k{number}": "" for number in range(33)}},
        {"labels": {"a": "line\nline"}},
        {"owner": "x" * 129},
        {"link": "javascript:alert(1)"},
        {"link": "/relative"},
        {"other": 1},
    ],
)
def test_labels_are_bounded(client: Client, body: dict[str, Any]) -> None:
    put(client, "a")
    assert client.request("PATCH", f"{LIST}/a", json=body).status_code == 422
    report = {"groups": [{"layers": "0", "observation": OBSERVATION}], **body}
    assert client.put(f"{LIST}/a", json=report).status_code == 422


def test_a_silence_lasts_until_its_time_and_counts_nowhere(client: Client, db: str) -> None:
    put(client, "a", applied=WRONG)
    put(client, "b", applied=WRONG)
    answer = client.put(f"{LIST}/a/silence", json={"until": in_hours(2), "note": "INC-7"})
    assert answer.json()["silence"]["note"] == "INC-7"
    assert names(client) == ["b", "a"]
    assert names(client, "silenced=true") == ["a"]
    assert names(client, "silenced=false") == ["b"]
    metrics = client.get("/metrics").text
    assert 'preshuffle_deployments{verdict="mismatch"} 1.0' in metrics
    assert "preshuffle_deployments_silenced 1.0" in metrics
    store = Store(db)
    with store.transaction(write=True) as connection:
        connection.exec_driver_sql("UPDATE deployments SET silenced_until_ms = 5")
    store.close()
    assert client.get(f"{LIST}/a").json()["silence"] is None
    assert names(client) == ["a", "b"]
    client.put(f"{LIST}/a/silence", json={"until": in_hours(2)})
    assert client.delete(f"{LIST}/a/silence").json()["silence"] is None
    actions = [event["action"] for event in client.get(f"{LIST}/a/history").json()["events"]]
    assert actions == ["unsilence", "silence", "silence", "report"]


@pytest.mark.parametrize(
    "until",
    [in_hours(-1), in_hours(24 * 367), "2999-01-01", "tomorrow", None],
    ids=["past", "beyond a year", "a day", "a word", "none"],
)
def test_a_silence_ends_at_a_time_to_come(client: Client, until: str | None) -> None:
    put(client, "a")
    assert client.put(f"{LIST}/a/silence", json={"until": until}).status_code == 422
    assert client.put(f"{LIST}/nobody/silence", json={"until": in_hours(1)}).status_code == 404


def test_an_acknowledgement_ends_with_the_state(client: Client) -> None:
    put(client, "a", applied=WRONG)
    marks = client.put(f"{LIST}/a/acknowledgement", json={"note": "known"}).json()
    assert marks["acknowledgement"]["by"] == "anonymous at 127.0.0.1"
    put(client, "a", applied=WRONG, node="n2")  # still mismatch
    assert client.get(LIST).json()["deployments"][0]["acknowledgement"]["note"] == "known"
    put(client, "a")
    put(client, "a", applied=WRONG)  # wrong again: nobody has acknowledged that
    assert client.get(f"{LIST}/a").json()["acknowledgement"] is None
    client.put(f"{LIST}/a/acknowledgement", json={})
    assert client.delete(f"{LIST}/a/acknowledgement").json()["acknowledgement"] is None


def test_a_mark_changes_the_revision_and_heeds_it(client: Client) -> None:
    put(client, "a")
    tag = client.get(f"{LIST}/a").headers["etag"]
    silenced = client.put(f"{LIST}/a/silence", json={"until": in_hours(1)}, headers={"If-Match": tag})
    assert silenced.status_code == 200
    assert client.get(f"{LIST}/a").headers["etag"] != tag
    assert client.delete(f"{LIST}/a/silence", headers={"If-Match": tag}).status_code == 412


def test_listeners_get_labels_also_of_a_forgotten_deployment(client: Client, db: str) -> None:
    put(client, "a", labels={"team": "x"}, owner="ann", link="https://example.org/a")
    store = Store(db)
    (first,) = claim_state_changes(store)
    client.delete(f"{LIST}/a")
    (last,) = claim_state_changes(store)
    store.close()
    for change in (first, last):
        assert (change.labels, change.owner, change.link) == ({"team": "x"}, "ann", "https://example.org/a")


def test_variables_that_the_book_does_not_know_are_counted_and_not_stored(client: Client, db: str) -> None:
    env = {"VLLM_ROCM_USE_AITER": "1", "VLLM_ROCM_USE_AITR": "2", "DB_PASSWORD": "hunter2", "MY_TOKEN": "hunter3"}
    receipt = put(client, "a", query={"engine": "vllm@0.20.0", "env": env})
    assert receipt["env_left_out"] == 2
    again = put(client, "a", query={"engine": "vllm@0.20.0", "env": {**env, "MY_TOKEN": "other"}})
    assert again["changed"] is False
    view = client.get(f"{LIST}/a")
    (replica,) = view.json()["replicas"]
    assert replica["env_left_out"] == 2
    kept = replica["groups"][0]["observation"]["query"]["env"]
    assert kept == {"VLLM_ROCM_USE_AITER": "1", "VLLM_ROCM_USE_AITR": "2"}
    put(client, "a", query={"engine": "vllm@0.20.0", "env": {"DB_PASSWORD": "hunter4"}})
    texts = [view.text, client.get("/v1/history").text, client.get(LIST).text]
    files = [path.read_bytes() for path in Path(db.removeprefix("sqlite:///")).parent.iterdir() if path.is_file()]
    for secret in ("hunter2", "DB_PASSWORD", "MY_TOKEN"):
        assert not [text for text in texts if secret in text]
        assert not [data for data in files if secret.encode() in data]


@pytest.mark.parametrize("body", [5, [], "x", True])
def test_a_body_of_a_wrong_kind_is_told_in_plain_words(client: Client, body: Any) -> None:
    put(client, "a")
    for method, path, fields in (
        ("PATCH", f"{LIST}/a", ["labels", "owner", "link"]),
        ("PUT", f"{LIST}/a/silence", ["until", "note"]),
        ("PUT", f"{LIST}/a/acknowledgement", ["note"]),
    ):
        answer = client.request(method, path, json=body)
        assert answer.status_code == 422
        (problem,) = answer.json()["problems"]
        assert (problem["field"], problem["valid"]) == ("(whole)", fields)
        assert problem["message"] == f"input should be a valid dictionary of these fields, found {body!r}"
        assert "instance of" not in answer.text

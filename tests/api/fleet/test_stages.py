"""Pipeline stages: each reports its own layers, and a replica is complete when all of them have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from preshuffle.api.answers import DeploymentView
from preshuffle.api.app import create_app
from preshuffle.api.client import Client as ServiceClient
from preshuffle.api.client import PipelineStage, Reporter, ServiceSettings
from preshuffle.api.commands.screens.deployments_view import show_events, show_list, show_one
from preshuffle.api.commands.screens.screen import Screen
from preshuffle.api.fleet import Group, number_problem, replica_title, replica_titles, report_number
from preshuffle.api.settings import Settings
from preshuffle.api.store import Store
from preshuffle.api.store.history import Events
from preshuffle.registry import Observation, QueryError, Registry
from support.service.server import REPORT, Client
from support.service.stores import silence

URL = "/v1/deployments/prod"
GROUP = REPORT["groups"][0]


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('stages')}/store.db"


@pytest.fixture(scope="module")
def service(db: str) -> Client:
    return Client(create_app(Settings(db=db), Registry.default()).state.front)


@pytest.fixture
def client(service: Client) -> Iterator[Client]:
    """A service without deployments."""
    yield service
    for one in service.get("/v1/deployments").json()["deployments"]:
        service.delete(f"/v1/deployments/{one['name']}")


def stage(layers: str | None, number: int, stages: int = 2, **fields: Any) -> dict[str, Any]:
    """A stage's report of its own layers; of none where it has no MoE layers."""
    groups = [] if layers is None else [{**GROUP, "layers": layers}]
    return {"groups": groups, "pipeline": {"stage": number, "stages": stages}, **fields}


def layers_of(shown: dict[str, Any]) -> list[str]:
    return [group["layers"] for replica in shown["replicas"] for group in replica["groups"]]


def problem_of(client: Client) -> str:
    answer = client.get(f"{URL}/health")
    return "" if answer.status_code == 200 else answer.json()["type"].rpartition(":")[2]


def test_stages_complement_each_other_and_the_replica_is_ready_with_the_last_of_them(client: Client) -> None:
    assert problem_of(client) == "unknown-deployment"
    assert client.put(f"{URL}?replica=1024", json=stage("18-35", 1)).status_code == 201
    waiting = client.get(f"{URL}/health")
    assert (waiting.status_code, waiting.headers["retry-after"]) == (503, "5")
    assert waiting.json()["detail"] == "prod: stage 0 of 2 of replica 0 has not reported"
    client.put(f"{URL}?replica=0", json=stage("0-17", 0))
    shown = client.get(URL).json()
    assert (layers_of(shown), shown["incomplete"], problem_of(client)) == (["0-17", "18-35"], [], "")
    assert [replica["pipeline"]["stage"] for replica in shown["replicas"]] == [0, 1]
    assert client.put(f"{URL}?replica=0", json=stage("0-17", 0)).json()["changed"] is False


def test_each_replica_waits_for_its_own_stages_however_many_they_are(client: Client) -> None:
    for replica, stages in ((0, 2), (1, 3), (7, 1)):
        for number in range(stages):
            if (replica, number) != (1, 1):
                client.put(f"{URL}?replica={replica + 1024 * number}", json=stage(str(number), number, stages))
    assert client.get(URL).json()["incomplete"] == [{"replica": 1, "stages": 3, "missing": [1]}]
    assert problem_of(client) == "incomplete-deployment"
    client.put(f"{URL}?replica=1025", json=stage("1", 1, 3))
    assert problem_of(client) == ""


def test_a_stage_without_moe_layers_is_fine_and_only_a_stage_may_be(client: Client) -> None:
    client.put(f"{URL}?replica=0", json=stage(None, 0))
    receipt = client.put(f"{URL}?replica=1024", json=stage("3-60", 1)).json()
    shown = client.get(URL).json()
    assert (receipt["verdict"], shown["verdict"], shown["replicas"][0]["verdict"]) == ("ok", "ok", "ok")
    assert client.get("/v1/deployments").json()["deployments"][0]["state"] == "ok"
    assert "no MoE layers" in client.get("/deployments/prod").text
    client.put("/v1/deployments/dense?replica=0", json=stage(None, 0))
    assert "no MoE layers" in client.get("/").text
    screen = Screen(width=120, colour=False)
    show_list(screen, client.get("/v1/deployments?name=dense").json()["deployments"])
    assert "no MoE layers" in " ".join("\n".join(screen.lines).split())
    none_at_all: list[dict[str, Any]] = [{"groups": []}, stage(None, 0, 1)]
    for without in none_at_all:
        assert client.put(f"{URL}?replica=5", json=without).json()["problems"][0]["field"] == "groups"


def test_a_wrong_stage_closes_the_gate_before_the_others_have_reported(client: Client) -> None:
    applied = {"tensors": {"w13_weight": {"layout": "gui16"}}, "gate_mode": "separated"}
    wrong = {"layers": "0-17", "observation": {**GROUP["observation"], "applied": applied}}
    client.put(f"{URL}?replica=0", json={**stage(None, 0), "groups": [wrong]})
    assert problem_of(client) == "unhealthy-deployment"


def test_another_number_of_stages_after_a_restart_and_a_silent_replica_leave_nothing_incomplete(
    client: Client, db: str
) -> None:
    for number in range(4):
        client.put(f"{URL}?replica={1024 * number}", json=stage(str(number), number, 4))
    for number in range(2):
        client.put(f"{URL}?replica={1024 * number}", json=stage(str(number), number, 2))
    assert client.get(URL).json()["incomplete"] == []
    client.put("/v1/deployments/gone?replica=0", json=stage("0", 0, ttl_s=60))
    store = Store(db)
    silence(store, "gone")
    store.close()
    shown = client.get("/v1/deployments/gone").json()
    assert (shown["state"], shown["incomplete"]) == ("stale", [])


@pytest.mark.parametrize(
    ("number", "body", "field", "text"),
    [
        (1, stage("0", 1), "replica", "stage 1 does not report as 1; valid: 1025 (replica + 1024 * stage)"),
        (1024, stage("0", 0), "replica", "stage 0 does not report as 1024; valid: 0"),
        (2048, stage("0", 2), "pipeline.stage", "2 is none of 2; valid: 0 to 1"),
        (0, stage("0", 0, 65), "pipeline.stages", "less than or equal to 64"),
    ],
)
def test_a_stage_under_another_number_is_refused(
    client: Client, number: int, body: dict[str, Any], field: str, text: str
) -> None:
    answer = client.put(f"{URL}?replica={number}", json=body)
    (problem,) = answer.json()["problems"]
    assert (answer.status_code, problem["field"]) == (422, field)
    assert text in problem["message"]


def test_page_and_command_name_stages_and_what_is_missing(client: Client) -> None:
    client.put(f"{URL}?replica=1027", json=stage("1", 1, 3, node="n1"))
    page = client.get("/deployments/prod").text
    assert "Incomplete: stages 0, 2 of 3 of replica 3 have not reported." in page
    assert "3 (stage 1 of 3) on <bdi>n1</bdi>" in page
    screen = Screen(width=100, colour=False)
    show_one(screen, DeploymentView.model_validate_json(client.get(URL).content))
    text = "\n".join(screen.lines)
    assert "incomplete: stages 0, 2 of 3 of replica 3 have not reported" in text
    assert "replica 3 (stage 1 of 3) on n1: ok" in text


def test_the_list_says_incomplete_and_names_stages(client: Client) -> None:
    for number in (0, 1):
        client.put(f"{URL}?replica={3 + 1024 * number}", json=stage(f"{number}", number, 4))
    client.put("/v1/deployments/whole?replica=0", json=stage("0", 0))
    client.put("/v1/deployments/whole?replica=1024", json=stage("1", 1))
    listed = {one["name"]: one for one in client.get("/v1/deployments").json()["deployments"]}
    assert listed["prod"]["incomplete"] == [{"replica": 3, "stages": 4, "missing": [2, 3]}]
    assert listed["prod"]["pipelines"] == {"3": {"stage": 0, "stages": 4}, "1027": {"stage": 1, "stages": 4}}
    assert (listed["whole"]["incomplete"], listed["prod"]["state"]) == ([], "ok")
    page = client.get("/").text
    assert '>incomplete</span><br><span class="quiet">2 of 4 stages</span>' in page
    assert "stages 2-3 of 4 of replica 3 have not reported" in page
    assert "1 replica in 2 stages" in page
    table = page.partition("<table")[2].partition("</table>")[0]
    assert ("replica 3 (stage 1 of 4)" in table, "1027" in table) == (True, False)
    screen = Screen(width=160, colour=False)
    show_list(screen, list(listed.values()))
    lines = [" ".join(line.split()) for line in "\n".join(screen.lines).splitlines()]
    assert any(line.startswith("incomplete prod") and "2 of 4 stages" in line for line in lines)
    assert any(line.startswith("ok whole") for line in lines)


def names(client: Client, path: str) -> list[str]:
    return sorted(one["name"] for one in client.get(path).json()["deployments"])


def test_the_list_filters_what_is_incomplete(client: Client, db: str) -> None:
    reported: dict[str, list[tuple[int, dict[str, Any]]]] = {
        "prod": [(0, stage("0", 0, 2)), (1024, stage("1", 1, 2)), (1, stage("0", 0, 3)), (2049, stage("2", 2, 3))],
        "whole": [(3, stage("0", 0)), (1027, stage("1", 1))],
        "alone": [(1030, stage("0", 0, 1))],
        "plain": [(1024, {"groups": [GROUP]}), (0, {"groups": [GROUP]})],
        "smaller": [(0, stage("0", 0, 3)), (2048, stage("2", 2, 3))],
        "silent": [(1024, stage("1", 1, 2, ttl_s=60))],
    }
    for name, members in reported.items():
        for number, body in members:
            client.put(f"/v1/deployments/{name}?replica={number}", json=body)
    client.put("/v1/deployments/smaller?replica=0", json=stage("0-1", 0, 2))  # a restart with two stages
    client.put("/v1/deployments/smaller?replica=1024", json=stage("2-3", 1, 2))
    store = Store(db)
    silence(store, "silent")
    store.close()
    shown = {one["name"]: bool(one["incomplete"]) for one in client.get("/v1/deployments").json()["deployments"]}
    wanted = sorted(name for name, incomplete in shown.items() if incomplete)
    assert wanted == ["prod"]
    assert names(client, "/v1/deployments?incomplete=true") == wanted
    assert names(client, "/v1/deployments?incomplete=false") == sorted(shown.keys() - set(wanted))
    assert names(client, "/v1/deployments?incomplete=") == sorted(shown)
    page = client.get("/?incomplete=true").text
    assert ('href="/deployments/prod"' in page, "deployments/whole" in page) == (True, False)
    assert '<option value="true" selected>some have not reported</option>' in page


def test_in_the_list_what_is_wrong_goes_before_what_is_missing(client: Client) -> None:
    applied = {"tensors": {"w13_weight": {"layout": "gui16"}}, "gate_mode": "separated"}
    wrong = {"layers": "0-17", "observation": {**GROUP["observation"], "applied": applied}}
    client.put(f"{URL}?replica=0", json={**stage(None, 0), "groups": [wrong]})
    screen = Screen(width=160, colour=False)
    show_list(screen, client.get("/v1/deployments").json()["deployments"])
    text = " ".join("\n".join(screen.lines).split())
    assert "mismatch prod" in text
    assert "stage 1 of 2 of replica 0 has not reported" in text.replace("1 of 2 stages: ", "")


def test_the_history_names_stages(client: Client) -> None:
    client.put(f"{URL}?replica=1027", json=stage("1", 1, 3))
    client.put(f"{URL}?replica=5", json={"groups": [GROUP]})
    answer = client.get(f"{URL}/history")
    events = Events.model_validate_json(answer.content)
    assert [event["pipeline"] for event in answer.json()["events"][:2]] == [None, {"stage": 1, "stages": 3}]
    assert [event.title for event in events.events[:2]] == ["5", "3 (stage 1 of 3)"]
    for page in (client.get("/deployments/prod").text, client.get("/changes").text):
        assert "replica 3 (stage 1 of 3)</span>" in page
        assert "replica 1027" not in page
    screen = Screen(width=160, colour=False)
    show_events(screen, events)
    assert any("prod/3 (stage 1 of 3)" in line for line in screen.lines)


def test_titles_join_stages_and_replicas() -> None:
    pipelines = {
        replica + 1024 * number: PipelineStage(stage=number, stages=4) for replica in (0, 1, 2) for number in range(4)
    }
    assert replica_titles(pipelines, pipelines) == "0–2 (stages 0–3 of 4)"
    assert replica_titles([0, 1, 2], pipelines) == "0–2 (stage 0 of 4)"
    assert replica_titles([1024, 5, 6], pipelines) == "5–6, 0 (stage 1 of 4)"


def test_a_replica_without_stages_keeps_its_number() -> None:
    alone, second = PipelineStage(stage=0, stages=1), PipelineStage(stage=1, stages=2)
    assert [report_number(5000, one) for one in (None, alone)] == [5000, 5000]
    assert (number_problem(5000, None), replica_title(5000, alone), replica_title(1030, second)) == (
        None,
        "5000",
        "6 (stage 1 of 2)",
    )
    with pytest.raises(QueryError, match="1024 is no replica with 2 stages; valid: 0 to 1023"):
        report_number(1024, second)


def test_settings_read_a_stage_and_say_what_is_valid() -> None:
    environ = {"PRESHUFFLE_SERVICE_REPLICA": "2", "PRESHUFFLE_SERVICE_PIPELINE": "1/4"}
    found = ServiceSettings.from_env(environ, deployment="prod", spool="/spool")
    assert (found.number, str(found.spool_folder())) == (1026, "/spool/prod@1026")
    for text, valid in (("one", "STAGE/STAGES"), ("4/4", "0 to 3")):
        with pytest.raises(QueryError, match=f"PRESHUFFLE_SERVICE_PIPELINE.*{valid}"):
            ServiceSettings.from_env({**environ, "PRESHUFFLE_SERVICE_PIPELINE": text})
    with pytest.raises(QueryError, match="PRESHUFFLE_SERVICE_REPLICA: 2000 is no replica with 4 stages"):
        ServiceSettings.from_env({**environ, "PRESHUFFLE_SERVICE_REPLICA": "2000"})


def transport_to(client: Client) -> httpx.MockTransport:
    """Return a transport to a service of this process."""

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        answered = client.request(request.method, path, content=request.read(), headers=dict(request.headers))
        return httpx.Response(
            answered.status_code, content=answered.content, headers={"Content-Type": "application/json"}
        )

    return httpx.MockTransport(answer)


def test_reporters_of_two_stages_report_one_replica_and_forget_their_own(client: Client) -> None:
    seen, last = Observation.model_validate(GROUP["observation"]), PipelineStage(stage=1, stages=2)
    transport = transport_to(client)
    settings = ServiceSettings(url="http://localhost", deployment="prod", spool="off", replica=3)
    stages = [
        Reporter(pipeline=PipelineStage(stage=number, stages=2), settings=settings, transport=transport)
        for number in (0, 1)
    ]
    for number, reporter in enumerate(stages):
        assert reporter.report({2 * number: seen, 2 * number + 1: seen}).result().source == "service"
    assert titles(client) == {"3 (stage 0 of 2)": ["0-1"], "3 (stage 1 of 2)": ["2-3"]}
    assert stages[0].report({0: seen}, replica=1024).result().source == "embedded"  # no number of a replica with stages
    with ServiceClient("http://localhost", transport=transport) as other:
        beat = other.heartbeat("prod", 3, last).value
        assert beat is not None
        assert beat.replica == 1027
        other.report("prod", [Group(layers="7", observation=seen)], replica=4, pipeline=last)
    for reporter in stages:
        reporter.close()
    assert titles(client) == {"4 (stage 1 of 2)": ["7"]}


def titles(client: Client) -> dict[str, list[str]]:
    view = DeploymentView.model_validate_json(client.get(URL).content)
    return {one.title: [group.layers for group in one.groups] for one in view.replicas}

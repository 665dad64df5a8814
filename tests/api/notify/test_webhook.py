"""State changes reach the outside: a log line each, a webhook once, whatever the receiver does."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from preshuffle.api.app import create_app
from preshuffle.api.errors import ServeError
from preshuffle.api.notify import webhook as module
from preshuffle.api.notify.bad_deployments import is_silenced
from preshuffle.api.notify.label_names import label_names
from preshuffle.api.notify.links import Links
from preshuffle.api.notify.payloads import FORMATS
from preshuffle.api.notify.webhook import Webhook, read_headers
from preshuffle.api.settings import Settings
from preshuffle.api.store.state_changes import StateChange
from preshuffle.api.store.store import Store
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import QueryError
from support.service.postgres import new_database
from support.service.server import REPORT, Client, running_server
from support.service.sink import Sink, running_sink

LINKS = Links("https://preshuffle.example/")
WRONG = json.loads(json.dumps(REPORT))
WRONG["groups"][0]["observation"]["applied"]["tensors"]["w13_weight"]["layout"] = "gui16"


def change(name: str = "d", before: Any = "ok", after: Any = "mismatch", **more: Any) -> StateChange:
    values: dict[str, Any] = {
        "id": 1,
        "at": datetime(2026, 11, 30, 12, tzinfo=UTC),
        "who": "ops",
        "action": "report",
        "name": name,
        "replica": 0,
        "node": "n1",
        "state_before": before,
        "state_after": after,
        "codes": ("layout_mismatch",) if after == "mismatch" else (),
        "cause": "w13_weight: bytes are <gui16>",
        "digest": "sha256:" + "0" * 64,
        "registry": None,
    }
    return StateChange(**{**values, **more})


def sent(sink: Sink, webhook: Webhook, *batches: Sequence[StateChange]) -> None:
    """Send batches, wait for the end of each."""
    webhook.start()
    for batch in batches:
        done = webhook.counts.sent + webhook.counts.dropped + len(batch)
        webhook.take(batch)
        deadline = time.monotonic() + 60
        while webhook.counts.sent + webhook.counts.dropped < done:
            assert time.monotonic() < deadline, webhook.counts
            time.sleep(0.01)
    webhook.stop()


def test_two_replicas_send_each_change_once_and_log_it(tmp_path: Path) -> None:
    """PostgreSQL, two processes, a real receiver; a report to either is told by one of them."""
    secret, logs = tmp_path / "header", [tmp_path / "log0", tmp_path / "log1"]
    secret.write_text("Authorization: Bearer s3cret\n")
    url = new_database()
    with running_sink() as sink, ExitStack() as stack:
        settings = {"webhook_url": sink.url, "webhook_header_file": str(secret), "public_url": "https://p.example"}
        servers = [stack.enter_context(running_server(url, "--log", "json", stderr=log, **settings)) for log in logs]
        for number, body in enumerate((REPORT, WRONG, REPORT)):
            path = f"{servers[number % 2].url}/v1/deployments/prod"
            assert httpx.put(path, json=body, timeout=60).status_code in (200, 201)
            told = [one for body in sink.wait_for(number) for one in body["changes"]]
        time.sleep(1)  # a second one would come within two rounds
        told = [one for body in sink.bodies for one in body["changes"]]
        assert [(one["from"], one["to"], one["severity"]) for one in told] == [
            ("ok", "mismatch", "critical"),
            ("mismatch", "ok", "none"),
        ]
        assert told[0]["page"] == "https://p.example/deployments/prod"
        assert told[0]["runbook"] == "https://p.example/docs/runbooks/layout_mismatch"
        assert {one["authorization"] for one in sink.received} == {"Bearer s3cret"}
        counted = "".join(httpx.get(f"{server.url}/metrics").text for server in servers)
        sums = [
            sum(map(float, re.findall(rf"^preshuffle_webhook_{name}_total (.*)", counted, re.MULTILINE)))
            for name in ("sent", "dropped")
        ]
        assert sums == [2, 0]
        assert [server.stop() for server in servers] == [0, 0]
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    changes = sorted((line for line in lines if line.get("event") == "state-change"), key=lambda line: line["id"])
    assert [(line["from"], line["to"], line["level"]) for line in changes] == [
        (None, "ok", "info"),
        ("ok", "mismatch", "error"),
        ("mismatch", "ok", "info"),
    ]
    wrong = changes[1]
    assert (wrong["name"], wrong["replica"], wrong["node"]) == ("prod", 0, "node-1")
    assert wrong["codes"][0] == "layout_mismatch"
    assert wrong["digest"].startswith("sha256:")
    assert "s3cret" not in "".join(log.read_text() for log in logs)


def test_a_receiver_that_fails_is_tried_again_with_longer_and_longer_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def pause(_webhook: Webhook, seconds: float) -> bool:
        pauses.append(seconds)
        return True

    monkeypatch.setattr(Webhook, "_pause", pause)
    with running_sink() as sink:
        webhook = Webhook(sink.url, FORMATS["generic"], LINKS)
        sink.answers = [500, 503, 429, 408]
        sent(sink, webhook, [change()])
        assert (webhook.counts.sent, webhook.counts.failures, pauses) == (1, 4, [1, 2, 4, 8])
        pauses.clear()
        webhook = Webhook(sink.url, FORMATS["generic"], LINKS)
        sink.answers, sink.headers = [429], {"Retry-After": "7"}
        sent(sink, webhook, [change()])
        assert pauses == [7]
    webhook = Webhook(sink.url, FORMATS["generic"], LINKS)  # nobody listens there any more
    pauses.clear()
    sent(sink, webhook, [change()], [change()])
    assert (webhook.counts.dropped, webhook.counts.failures) == (2, 2 * module.ATTEMPTS)
    assert pauses[: module.ATTEMPTS - 1] == [1, 2, 4, 8, 16, 32, 60]


def test_a_redirect_is_not_followed_and_a_refusal_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    with running_sink() as sink, running_sink() as elsewhere:
        for status in (307, 404):
            sink.answers, sink.headers = [status], {"Location": elsewhere.url}
            webhook = Webhook(sink.url, FORMATS["generic"], LINKS, lambda: {"Authorization": "Bearer s3cret"})
            sent(sink, webhook, [change()])
            assert (webhook.counts.sent, webhook.counts.dropped, webhook.counts.failures) == (0, 1, 1)
        assert len(sink.bodies) == 2
        assert elsewhere.bodies == []
    assert "redirects are not followed" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_slow_receiver_holds_up_nobody_and_loses_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE", 5)
    webhook = Webhook("http://127.0.0.1:9/", FORMATS["generic"], LINKS)  # not started: nothing is taken from the queue
    webhook.take([change(f"d{number}") for number in range(8)])
    assert (webhook.waiting, webhook.counts.dropped) == (5, 3)
    assert [one.name for one in webhook._queue] == ["d3", "d4", "d5", "d6", "d7"]
    webhook.stop()


def test_a_receiver_that_never_answers_is_left_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        webhook = Webhook(f"http://127.0.0.1:{silent.getsockname()[1]}/", FORMATS["generic"], LINKS)
        webhook.start()
        webhook.take([change()])
        while webhook.waiting:
            time.sleep(0.01)
        webhook.take([change(), change()])  # returns at once, though the thread waits for an answer
        webhook.stop()
    assert "ends with 3 state changes that 127.0.0.1 has not got" in caplog.text


def test_only_what_begins_or_ends_something_is_sent_and_nothing_of_silenced_ones() -> None:
    webhook = Webhook("http://127.0.0.1:9/", FORMATS["generic"], LINKS)
    quiet = [
        change(before=None, after="ok"),
        change(before="ok", after="unknown"),
        change(before="unknown", after=None),
    ]
    loud = [change(before="mismatch", after=None), change(before=None, after="stale"), change(after="drifted")]
    webhook.take([*quiet, *loud])
    assert list(webhook._queue) == loud
    with running_sink() as sink:
        webhook = Webhook(sink.url, FORMATS["generic"], LINKS, is_silenced=lambda name: name == "quiet")
        webhook.take([change("quiet"), change("loud")])
        webhook.start()
        sink.wait_for(1)
        webhook.stop()
        assert [one["name"] for body in sink.bodies for one in body["changes"]] == ["loud"]


def test_a_silence_is_read_from_the_store(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store.db").create()
    client = Client(create_app(Settings(), Registry.default(), store).state.front)
    client.put("/v1/deployments/d", json=WRONG)
    assert not is_silenced(store, "d")
    until = {"until": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    assert client.put("/v1/deployments/d/silence", json=until).status_code == 200
    assert is_silenced(store, "d")
    assert not is_silenced(store, "unknown")
    store.close()
    (tmp_path / "store.db").unlink()
    assert not is_silenced(store, "d")  # better told twice than not


def test_bodies_of_each_format() -> None:
    changes = [change(labels={"team": "a", "a/b": "c"}, owner="ops"), change(before="mismatch", after="ok", cause=None)]
    text = FORMATS["slack"](changes * 15, LINKS)["text"].splitlines()
    assert len(text) == 21
    assert text[-1] == "and 10 more"
    assert text[0].startswith(":red_circle: d replica 0 on n1 went from ok to mismatch (layout_mismatch): ")
    assert "bytes are &lt;gui16&gt;" in text[0]
    assert "<https://preshuffle.example/docs/runbooks/layout_mismatch|layout_mismatch>" in text[0]
    assert text[1].startswith(":large_green_circle:")
    firing, resolved = FORMATS["alertmanager"](changes, LINKS)
    assert firing["labels"] == {
        "alertname": "PreshuffleDeployment",
        "deployment": "d",
        "replica": "0",
        "label_team": "a",
        "label_a_b": "c",
    }
    assert firing["annotations"]["runbook_url"] == "https://preshuffle.example/docs/runbooks/layout_mismatch"
    assert firing["annotations"]["severity"] == "critical"
    at = datetime.fromisoformat(firing["startsAt"])
    assert datetime.fromisoformat(firing["endsAt"]) - at == timedelta(hours=24)  # it does not page for ever
    assert resolved["endsAt"] == resolved["startsAt"]
    json.dumps(FORMATS["generic"](changes, Links("")))


@pytest.mark.parametrize(
    ("text", "says"),
    [("no header", "line 1 is no header"), ("A: b\nX y: z", "line 2"), ("A: ü", "line 1"), (None, "cannot be read")],
)
def test_a_wrong_file_of_headers_stops_the_start(tmp_path: Path, text: str | None, says: str) -> None:
    file = tmp_path / "headers"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ServeError, match=says):
        read_headers(str(file))


def test_a_wrong_url_is_not_repeated() -> None:
    with pytest.raises(QueryError) as error:
        Settings.from_env({"PRESHUFFLE_WEBHOOK_URL": "hooks.example/s3cret"})
    assert "s3cret" not in str(error.value)
    assert "PRESHUFFLE_WEBHOOK_URL" in str(error.value)


def test_a_receiver_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes within the time of a step; the request as a whole has an end, too."""
    monkeypatch.setattr(module, "_REQUEST_S", 0.6)
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    ended = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not ended.wait(0.1):
                with suppress(OSError):
                    connection.sendall(b"y")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip, args=(server,), daemon=True).start()
        webhook = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", FORMATS["generic"], LINKS)
        webhook.start()
        webhook.take([change()])
        deadline = time.monotonic() + 20
        while webhook.counts.failures == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        ended.set()
    assert (webhook.counts.failures, webhook.counts.sent) == (1, 0)
    webhook.stop()


def test_labels_that_alertmanager_would_merge_get_names_of_their_own() -> None:
    assert label_names(["a-b", "a_b", "a_b_2", "a.b", "team"]) == {
        "a_b": "label_a_b",
        "a_b_2": "label_a_b_2",
        "team": "label_team",
        "a-b": "label_a_b_1",
        "a.b": "label_a_b_3",
    }
    both = change(labels={"a-b": "1", "a_b": "2"})
    labels = FORMATS["alertmanager"]([both], LINKS)[0]["labels"]
    assert {name: value for name, value in labels.items() if name.startswith("label_")} == {
        "label_a_b": "2",
        "label_a_b_1": "1",
    }

"""Reporter: nothing blocks or raises into the engine, and its results carry verdict, codes and fixes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from preshuffle.api.client import AsyncReporter, Reporter, ServiceSettings, VerdictError, group_layers
from preshuffle.api.fleet import Group
from preshuffle.registry import Decision, Observation, Registry
from support.service.recorder import RecordingService
from support.service.server import OBSERVATION, environment, running_server

RIGHT = Observation.parse(OBSERVATION)
APPLIED = {"gate_mode": "interleave", "tensors": {"w13_weight": {"layout": "sep16", "is_shuffled": True}}}
WRONG = Observation.parse({**OBSERVATION, "applied": APPLIED})
LAYERS = dict.fromkeys(range(36), RIGHT)


def settings(url: str | None = "http://service", **more: Any) -> ServiceSettings:
    return ServiceSettings(**{"url": url, "deployment": "prod", "spool": "off", "node": "n", **more})


@pytest.fixture
def service() -> RecordingService:
    return RecordingService()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("service") / "store.db") as server:
        yield server.url


def test_the_services_reply_carries_verdict_codes_and_fixes(url: str) -> None:
    with Reporter(settings=settings(url, deployment="gpt-prod")) as reporter:
        right = reporter.report(LAYERS).raise_if(timeout=60)
        assert (right.source, right.value.verdict, right.value.codes) == ("service", "ok", ())
        pending = reporter.report({0: WRONG}, replica=1)
        with pytest.raises(VerdictError, match=r"mismatch \(layout_mismatch") as error:
            pending.raise_if("mismatch", timeout=60)
        embedded = Registry.default().check(WRONG)
        assert (error.value.verdict, error.value.codes[0]) == (embedded.verdict, embedded.findings[0].code)
        assert embedded.findings[0].fix in error.value.fixes
    left = httpx.get(f"{url}/v1/deployments/gpt-prod").json()["replicas"]
    assert [one["replica"] for one in left] == [1]  # refused to start: the service still shows why


@pytest.mark.parametrize("observed", [LAYERS, group_layers(LAYERS), list(group_layers(LAYERS))])
def test_without_a_service_the_embedded_book_judges(observed: Any) -> None:
    with Reporter("prod", settings=ServiceSettings()) as reporter:
        reply = reporter.report(observed).result()
        assert (reply.source, reply.why) == ("embedded", "no service is configured")
        assert reply.value.report == Registry.default().check(RIGHT)
        with pytest.raises(VerdictError, match="mismatch"):
            reporter.report({**LAYERS, 7: WRONG}).raise_if()
        assert reporter.report({7: WRONG}).raise_if("ok", "degraded").value.verdict == "mismatch"
        assert reporter.flush()
        with pytest.raises(ValueError, match="'broken' is not a verdict; valid: ok, degraded"):
            reporter.report(LAYERS).raise_if("broken")  # type: ignore[arg-type]


def test_nothing_waits_for_a_service_that_hangs(service: RecordingService) -> None:
    going_on = threading.Event()

    def hang(_: httpx.Request) -> None:
        going_on.wait(60)

    service.answer = hang
    with Reporter(settings=settings(), transport=service.transport) as reporter:
        for replica in range(100):
            reporter.report(LAYERS, replica=replica)
        reply = reporter.report(LAYERS).result(timeout=0.05)
        assert (reply.source, reply.why) == ("embedded", "no answer within 0.05 s")
        assert service.puts == []
        going_on.set()
        assert reporter.flush(60)
    assert len({replica for replica, _ in service.puts}) == 100


NONSENSE: list[Any] = [None, 7, {"x": RIGHT}, {0: "x"}, {-1: RIGHT}, {0.5: RIGHT}, [], {}, ["x"], [Group], {0: None}]


@pytest.mark.parametrize("observed", NONSENSE, ids=map(repr, range(len(NONSENSE))))
@pytest.mark.parametrize("configured", [True, False])
def test_nothing_raises_into_the_engine(observed: Any, configured: bool, service: RecordingService) -> None:
    with Reporter(settings=settings("http://service" if configured else None), transport=service.transport) as reporter:
        reply = reporter.report(observed).raise_if()
        assert (reply.source, reply.value.verdict) == ("embedded", "unknown")
        assert reporter.report(LAYERS).result(60).source == ("service" if configured else "embedded")


def test_an_error_of_the_transport_does_not_end_the_thread(
    service: RecordingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preshuffle.api.client.reporter._AFTER_ERROR_S", 0.01)

    def broken(_: httpx.Request) -> None:
        service.answer = None
        raise RuntimeError("nobody expects this")

    service.answer = broken
    with Reporter(settings=settings(), transport=service.transport) as reporter:
        first = reporter.report(LAYERS)
        assert first.result(0).value.verdict == "ok"
        assert reporter.report(LAYERS, replica=1).result(60).source == "service"
        assert reporter.flush(60)
    assert sorted(service.puts) == [(0, "n"), (1, "n")]


def test_wrong_settings_are_logged_and_the_embedded_book_judges(caplog: pytest.LogCaptureFixture) -> None:
    wrong = ServiceSettings(url="http://service")
    for made in (
        Reporter("bad name!", settings=wrong),
        Reporter(settings=wrong),
        Reporter("a", replica=-1, settings=wrong),
    ):
        assert made.problem
        assert made.problem in caplog.text
        assert made.report(LAYERS).result().value.verdict == "ok"
        made.close()


def test_a_closed_reporter_judges_by_the_embedded_book(service: RecordingService) -> None:
    reporter = Reporter(settings=settings(), transport=service.transport)
    reporter.report(LAYERS).result(60)
    for _ in range(2):
        reporter.close(60)
    assert service.requests == [("PUT", 0), ("DELETE", 0)]
    assert reporter.report(LAYERS).result().why == "the reporter is closed"
    assert reporter.flush()


@pytest.mark.parametrize(("error", "forgotten"), [(None, True), (KeyboardInterrupt, True), (RuntimeError, False)])
def test_an_engine_that_failed_is_not_forgotten(
    error: type[BaseException] | None, forgotten: bool, service: RecordingService
) -> None:
    try:
        with Reporter(settings=settings(), transport=service.transport) as reporter:
            reporter.report(LAYERS).result(60)
            if error:
                raise error
    except (KeyboardInterrupt, RuntimeError):
        pass
    assert service.count("DELETE") == forgotten


def test_what_is_sent_is_a_report_with_node_and_lifetime(service: RecordingService) -> None:
    described = settings(labels={"team": "moe"}, owner="ops", link="https://moe.example")
    with Reporter(settings=described, transport=service.transport) as reporter:
        reporter.report(LAYERS, replica=1).result(60)
        assert service.reports[1]["labels"] == {"team": "moe"}
        assert (service.reports[1]["owner"], service.reports[1]["link"]) == ("ops", "https://moe.example")
    with Reporter(settings=settings(), transport=service.transport, replica=0) as reporter:
        reporter.report(LAYERS, aiter_build="0.1.20.post1").result(60)
        expected = {"layers": "0-35", "observation": OBSERVATION}
        assert service.reports[0] == {"groups": [expected], "node": "n", "ttl_s": 60, "aiter_build": "0.1.20.post1"}


def test_the_token_is_read_again_for_every_request(service: RecordingService, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    with Reporter(settings=settings(token="ignored", token_file=str(file)), transport=service.transport) as reporter:
        reporter.report(LAYERS).result(60)
        file.write_text("second")
        reporter.report(LAYERS).result(60)
        file.unlink()
        assert "cannot be read" in str(reporter.report(LAYERS).result(60).why)
    assert service.tokens[:2] == ["Bearer first", "Bearer second"]


def test_asyncio_awaits_the_same_results(service: RecordingService) -> None:
    async def engine() -> None:
        async with AsyncReporter(settings=settings(), transport=service.transport) as reporter:
            reply = await reporter.report(LAYERS).raise_if(timeout=60)
            assert (reply.source, reply.value.verdict) == ("service", "ok")
            service.verdict = "mismatch"
            with pytest.raises(VerdictError, match="mend it"):
                await reporter.report(LAYERS, replica=1).raise_if("mismatch", timeout=60)
            assert await reporter.flush(60)
            assert (reporter.stats.delivered, reporter.problem) == (2, None)

    asyncio.run(engine())
    assert list(service.reports) == [1]


def test_layers_that_were_observed_alike_are_one_group() -> None:
    unstated = Observation(query=RIGHT.query)
    stated = Observation(query=RIGHT.query, applied=RIGHT.applied.model_copy(update={"tensors": {}}))
    groups = group_layers({4: unstated, 0: RIGHT, 1: RIGHT, 3: RIGHT, 2: stated})
    assert [group.layers for group in groups] == ["0-1,3", "2", "4"]
    decision = Registry.default().resolve(RIGHT.query)
    assert isinstance(decision, Decision)
    followed = group_layers(dict.fromkeys(range(3), RIGHT), {0: decision, 1: decision})
    assert [(group.layers, group.decision_digest) for group in followed] == [
        ("0-1", decision.decision_digest),
        ("2", None),
    ]


CHILD = """
import multiprocessing, os, sys, threading
from preshuffle.api.client import Reporter
from preshuffle.registry import Observation, Query

def report(replica):
    observed = {0: Observation(query=Query(model="openai/gpt-oss-120b", arch="gfx950"))}
    assert reporter.report(observed, replica=replica).result(60).source == "service", replica

reporter = Reporter()
report(0)
forked = multiprocessing.get_context("fork").Process(target=report, args=(1,))
forked.start()
forked.join()
silent = os.fork()
if not silent:
    sys.exit(0)  # a copy that reported nothing forgets nothing
os.waitpid(silent, 0)

def late():
    threading.main_thread().join()
    report(2)  # the engine goes on after its main thread

threading.Thread(target=late).start()
print(*(replica["replica"] for replica in __import__("httpx").get(
    os.environ["PRESHUFFLE_SERVER"] + "/v1/deployments/gpt-exit").json()["replicas"]), flush=True)
"""


def test_the_end_of_a_process_forgets_what_it_reported_and_a_fork_begins_anew(url: str, tmp_path: Path) -> None:
    named = environment(server=url, service_deployment="gpt-exit", service_spool=str(tmp_path / "spool"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD], env=named, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    assert httpx.get(f"{url}/v1/deployments/gpt-exit").status_code == 404
    events = httpx.get(f"{url}/v1/deployments/gpt-exit/history").json()["events"]
    assert [(one["action"], one["replica"]) for one in events] == [
        *(("forget", 0), ("forget", 2), ("report", 2), ("forget", 1), ("report", 1), ("report", 0)),
    ]
    assert os.listdir(tmp_path / "spool" / "gpt-exit@0") == ["lock"]

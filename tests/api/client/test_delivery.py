"""Delivery, step by step: order, repetition, refusals, waiting, heartbeats and goodbyes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import pytest

from preshuffle.api.client.backoff import LONGEST_RETRY_AFTER_S, LONGEST_S, Backoff
from preshuffle.api.client.connection import ServiceConnection
from preshuffle.api.client.delivery import Delivery
from preshuffle.api.client.pending import PendingReport
from preshuffle.api.client.problems import retry_after_of
from preshuffle.api.client.spool import Spool
from preshuffle.api.fleet import Group
from preshuffle.registry import Observation, Registry
from support.service.recorder import RecordingService, problem
from support.service.server import OBSERVATION

GROUPS = (Group(layers="0-35", observation=Observation.parse(OBSERVATION)),)
INTERVAL = 20.0


@dataclass
class Bench:
    """A delivery to a service in memory, at a time that the test sets."""

    service: RecordingService = field(default_factory=RecordingService)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.spool = Spool(None, "prod", max_bytes=1 << 20, max_entries=100)
        connection = ServiceConnection("http://service", transport=self.service.transport)
        self.delivery = Delivery("prod", connection, self.spool, interval_s=INTERVAL, clock=lambda: self.now)

    def report(self, replica: int = 0, node: str = "n", groups: tuple[Group, ...] = GROUPS) -> PendingReport:
        pending = PendingReport(replica, groups, {"node": node}, Registry.default, self.delivery.kept.add)
        self.delivery.accept(pending)
        return pending

    def run(self, seconds: float = 0.0) -> float | None:
        """Take every step that is due within some seconds; return when the next one is."""
        end = self.now + seconds
        for _ in range(10_000):
            wait = self.delivery.step()
            if wait is None or self.now + wait > end:
                self.now = end
                return wait
            self.now += wait
        raise AssertionError("it never waits")


@pytest.fixture(autouse=True)
def same_jitter() -> None:
    """Draw the same delays in each run."""
    random.seed(7)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def away(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def once(answer: Callable[[httpx.Request], httpx.Response]) -> Callable[[httpx.Request], httpx.Response | None]:
    """Return an answer for the first request alone."""
    first = itertools.count()
    return lambda request: answer(request) if next(first) == 0 else None


def test_reports_arrive_once_and_in_order(bench: Bench) -> None:
    pending = [bench.report(replica, f"n{replica}") for replica in (4, 2, 7)]
    bench.run()
    assert bench.service.puts == [(4, "n4"), (2, "n2"), (7, "n7")]
    assert bench.service.requests == [("PUT", 4), ("PUT", 2), ("PUT", 7)]
    assert [one.result(0).source for one in pending] == ["service"] * 3
    assert bench.delivery.counts.delivered == 3
    bench.report(4, "n4")
    bench.run()
    assert bench.service.puts[3:] == []
    assert (bench.delivery.counts.delivered, bench.delivery.counts.unchanged) == (4, 1)


def test_what_waits_is_delivered_later_and_the_newest_of_a_replica_supersedes(bench: Bench) -> None:
    bench.service.answer = away
    old = bench.report(1, "old")
    bench.run(1)
    bench.report(2, "other")
    new = bench.report(1, "new")
    bench.run(10)
    assert old.result(0).why == "a newer report of this replica replaced it"
    assert (new.result(0).source, bench.service.puts) == ("embedded", [])
    bench.service.answer = None
    bench.run(60)
    assert bench.service.puts == [(2, "other"), (1, "new")]
    assert bench.delivery.counts.superseded == 1
    assert new.result(0).source == "service"


def test_an_answer_that_was_lost_is_asked_for_again(bench: Bench) -> None:
    def lost(request: httpx.Request) -> httpx.Response:
        bench.service.put(0, request)
        raise httpx.ReadError("connection reset")

    bench.service.answer = once(lost)
    bench.report()
    bench.run(5)
    assert bench.service.requests[:2] == [("PUT", 0)] * 2
    assert bench.service.puts == [(0, "n")]
    assert bench.delivery.counts.unchanged == 1


@pytest.mark.parametrize(
    "answer",
    [
        away,
        lambda _: httpx.Response(502, text="<html>bad gateway</html>"),
        lambda _: httpx.Response(404, text="no such page"),
        lambda _: httpx.Response(200, text="<html>log in</html>"),
        lambda _: httpx.Response(302, headers={"Location": "/login"}),
        lambda _: httpx.Response(200, json=["no", "receipt"]),
        lambda _: problem(503, "store-unavailable"),
        lambda _: problem(429, "busy"),
        lambda _: problem(404, "not-found"),
        lambda _: problem(401, "unauthorized"),
        lambda _: problem(507, "quota-exceeded"),
    ],
)
def test_a_failure_is_tried_again_after_longer_and_longer(
    answer: Callable[[httpx.Request], httpx.Response], bench: Bench
) -> None:
    bench.service.answer = answer
    pending = bench.report()
    moments = []
    for _ in range(10):
        before = bench.service.count("PUT")
        wait = bench.run(0)
        assert bench.service.count("PUT") == before + 1
        assert wait is not None
        moments.append(wait)
        bench.now += wait
    assert pending.result(0).source == "embedded"
    assert all(0.25 * 2**number <= wait <= 0.5 * 2**number for number, wait in enumerate(moments[:7]))
    assert all(30 <= wait <= 60 for wait in moments[7:])
    bench.service.answer = None
    bench.run(60)
    assert bench.service.puts == [(0, "n")]


def test_the_service_gets_time_to_judge_a_report(bench: Bench) -> None:
    timeouts = []
    bench.service.answer = lambda request: timeouts.append(request.extensions["timeout"])
    bench.report()
    bench.run(INTERVAL)
    assert [(one["connect"], one["read"]) for one in timeouts] == [(2.0, 30.0), (2.0, 2.0)]


def test_retry_after_is_honoured(bench: Bench) -> None:
    bench.service.answer = once(lambda _: problem(503, "busy", **{"Retry-After": "40"}))
    bench.report()
    bench.run(39.9)
    assert bench.service.requests == [("PUT", 0)]
    bench.run(1)
    assert bench.service.puts == [(0, "n")]


def test_a_refused_report_is_not_sent_again_and_holds_nothing_up(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.service.answer = once(lambda _: problem(422, "invalid-input"))
    refused, other = bench.report(1), bench.report(2, "n2")
    bench.run(300)
    assert bench.service.puts == [(2, "n2")]
    assert bench.service.requests[:2] == [("PUT", 1), ("PUT", 2)]
    assert (refused.result(0).why, other.result(0).source) == ("it is invalid-input", "service")
    assert bench.delivery.counts.refused == 1
    assert "the report of replica 1 is not valid: it is invalid-input" in caplog.text


def test_a_report_that_is_not_valid_is_never_sent(bench: Bench) -> None:
    pending = bench.report(groups=(*GROUPS, *GROUPS))
    assert bench.run() is None
    reply = pending.result(0)
    assert reply.value.verdict == "unknown"
    assert reply.value.report is not None
    assert "layer 0 is in" in reply.value.report.notes[0]
    assert bench.service.requests == []


@pytest.mark.parametrize("answer", [problem(403, "forbidden"), problem(507, "quota-exceeded")])
def test_a_report_that_must_wait_holds_no_other_up(answer: httpx.Response, bench: Bench) -> None:
    bench.service.answer = lambda request: answer if request.url.params["replica"] == "1" else None
    pending = bench.report(1)
    bench.report(2, "n2")
    bench.run(2)
    assert bench.service.puts == [(2, "n2")]
    assert pending.done
    bench.service.answer = None
    bench.run(60)
    assert bench.service.puts == [(2, "n2"), (1, "n")]


def test_heartbeats_follow_the_report_three_times_in_its_time(bench: Bench) -> None:
    bench.run(100)
    assert bench.service.requests == []
    for replica in (1, 2):
        bench.report(replica)
    bench.run(10 * INTERVAL)
    assert 20 <= bench.delivery.counts.heartbeats <= 22
    assert bench.service.count("POST") == bench.delivery.counts.heartbeats


def test_a_heartbeat_of_an_unknown_replica_makes_it_report_again(bench: Bench) -> None:
    bench.report(1, "n1")
    bench.report(2, "n2")
    bench.run(INTERVAL)
    bench.service.reports.clear()
    bench.run(INTERVAL)
    assert bench.service.puts == [(1, "n1"), (2, "n2")] * 2
    assert bench.delivery.counts.reported_again == 2
    beats = bench.delivery.counts.heartbeats
    bench.run(INTERVAL)
    assert bench.delivery.counts.heartbeats > beats


def test_heartbeats_begin_again_when_the_service_is_back(bench: Bench) -> None:
    bench.report()
    bench.run(5)
    bench.service.answer = away
    bench.run(600)
    assert bench.service.count("POST") < 25
    bench.service.answer = None
    bench.run(LONGEST_S + 2 * INTERVAL)
    assert bench.delivery.counts.heartbeats >= 2


def test_a_refused_heartbeat_is_sent_again_at_its_time(bench: Bench) -> None:
    bench.report()
    bench.run(5)
    bench.service.answer = lambda _: problem(403, "forbidden")
    bench.run(10 * INTERVAL)
    assert 10 <= bench.service.count("POST") <= 12


def test_the_replicas_are_forgotten_at_the_end(bench: Bench) -> None:
    for replica in (1, 2, 3):
        bench.report(replica)
    bench.run()
    bench.report(4)
    bench.delivery.kept.add(2)
    bench.delivery.finish(bench.now + 2, goodbye=True)
    assert list(bench.service.reports) == [2]
    assert bench.service.puts[-1] == (4, "n")


def test_nothing_is_forgotten_that_was_not_reported_here_or_while_the_service_is_away(bench: Bench) -> None:
    bench.spool.put(9, bench.report(9).build().canonical().encode())
    other = Bench(bench.service)
    other.spool.put(8, bench.spool.read(9) or b"")
    other.run()
    other.delivery.finish(other.now + 2, goodbye=True)
    assert list(bench.service.reports) == [8]
    bench.run()
    bench.service.answer = away
    bench.report(9, "newer")
    bench.delivery.finish(bench.now + 2, goodbye=True)
    assert (9 in bench.spool, bench.service.count("DELETE")) == (True, 0)


def test_a_report_known_to_wait_is_judged_without_waiting(bench: Bench) -> None:
    bench.service.answer = away
    bench.report(1)
    bench.run(0)
    second = bench.report(2)
    assert second.done
    assert "refused" in str(second.result().why)


def test_backoff_doubles_to_its_limit_and_takes_no_endless_retry_after() -> None:
    backoff = Backoff(first_s=1, longest_s=8)
    assert [0.5 * 2**step <= backoff.fail() <= 2**step for step in range(4)] == [True] * 4
    assert all(4 <= backoff.fail() <= 8 for _ in range(2000))
    assert backoff.fail(1e9) <= LONGEST_RETRY_AFTER_S + 1
    backoff.succeed()
    assert backoff.fail() <= 1


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5.0),
        (" 120 ", 120.0),
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
        ("Thu, 01 Jan 2026 00:00:30", 30.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after_of(httpx.Response(503, headers={"Retry-After": text}), NOW) == seconds

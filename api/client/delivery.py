"""Delivery of reports and heartbeats to one service, step by step."""

from __future__ import annotations

import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import httpx

from preshuffle.api.client.backoff import Backoff
from preshuffle.api.client.client import deployment_path
from preshuffle.api.client.connection import ServiceConnection
from preshuffle.api.client.pending import PendingReport
from preshuffle.api.client.problems import ClientError, UnavailableError
from preshuffle.api.client.replies import REFUSED, Told, read_receipt
from preshuffle.api.client.spool import Spool, SpooledReport
from preshuffle.registry.base.errors import PreshuffleError

log = logging.getLogger("preshuffle.client")

JUDGING_S: Final = 30.0
"""Seconds that the service may take to judge a report: a report given up earlier would be judged again and again."""
ATTACH_S: Final = 5.0
"""Seconds between attempts to own the spool while another process does."""
_NEVER_VALID: Final = frozenset({400, 413, 415, 422})
"""Status of refusals that no later attempt changes."""
_OF_THIS_REPORT: Final = 507
"""Status of a failure that concerns one report alone: the disk or a quota is full."""


@dataclass
class DeliveryCounts:
    """What was delivered, and what was not.

    Attributes:
        delivered: reports that the service acknowledged.
        unchanged: those of them that it had already.
        reported_again: reports that it had lost: a heartbeat was answered with 404.
        superseded: reports that a newer one of the same replica replaced before they were delivered.
        refused: reports that are not valid, here or to the service.
        heartbeats: that the service acknowledged.
        failures: requests without an answer of the service.
        last_failure: of these, the last one's message.
    """

    delivered: int = 0
    unchanged: int = 0
    reported_again: int = 0
    superseded: int = 0
    refused: int = 0
    heartbeats: int = 0
    failures: int = 0
    last_failure: str | None = None


@dataclass
class _Replica:
    """Replica that this process reported: its last delivered report, and when its heartbeat is due."""

    body: bytes
    due: float


@dataclass
class _Deferred:
    """Report that the service does not take now, though it answers."""

    backoff: Backoff = field(default_factory=Backoff)
    until: float = 0.0


class Delivery:
    """Delivery of reports and heartbeats, one request at a time.

    Not thread-safe: one thread calls it.
    """

    def __init__(
        self,
        deployment: str,
        connection: ServiceConnection,
        spool: Spool,
        *,
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Deliver what the spool holds.

        Args:
            deployment: its name.
            connection: to the service.
            spool: of the reports that wait.
            interval_s: seconds between heartbeats; up to a tenth of it is taken off, so that a fleet spreads.
            clock: monotonic seconds.
        """
        self.counts = DeliveryCounts()
        self.kept: set[int] = set()
        """Replicas that are not forgotten at exit."""
        self._path = deployment_path(deployment)
        self._connection, self._spool, self._clock = connection, spool, clock
        self._interval_s = interval_s * (1 - random.random() / 10)
        self._pending: dict[int, PendingReport] = {}
        self._replicas: OrderedDict[int, _Replica] = OrderedDict()  # by the next heartbeat
        self._deferred: dict[int, _Deferred] = {}
        self._backoff, self._away_until = Backoff(), 0.0
        self._attach_at = 0.0

    @property
    def idle(self) -> bool:
        """Whether no report waits."""
        return not self._spool

    def accept(self, pending: PendingReport) -> None:
        """Put a report into the spool.

        It replaces the replica's last one if that still waits.
        """
        replica = pending.replica
        try:
            body = pending.build().canonical().encode()
        except PreshuffleError as error:
            self._refuse(pending, replica, str(error))
            return
        self.counts.superseded += replica in self._spool
        if older := self._pending.pop(replica, None):
            older.fail("a newer report of this replica replaced it")
        self._deferred.pop(replica, None)
        self._pending[replica] = pending
        if self._clock() < self._away_until:
            pending.fail(self.counts.last_failure or "the service is away")
        for given_up in self._spool.put(replica, body):
            if dropped := self._pending.pop(given_up, None):
                dropped.fail("too many reports wait for the service")

    def step(self) -> float | None:
        """Send one request if one is due.

        Returns:
            Seconds until the next one is due; None for never.
        """
        now = self._clock()
        if not self._spool.attached and now >= self._attach_at:
            self._attach_at = now + ATTACH_S
            self._spool.attach()
        if now < self._away_until:
            return self._away_until - now
        if report := next((one for one in self._spool if self._may_send(one, now)), None):
            self._attempt(partial(self._put, report))
            return 0.0
        replica, state = next(iter(self._replicas.items()), (0, None))
        if state is not None and state.due <= now:
            self._attempt(partial(self._beat, replica, state))
            return 0.0
        return self._next_due(now)

    def finish(self, deadline: float, *, goodbye: bool) -> None:
        """Send what waits, then forget this process's replicas.

        It ends early where the service does not answer.

        Args:
            deadline: end, in seconds of the clock.
            goodbye: whether replicas are forgotten; those of refused verdicts never are.
        """
        while not self.idle and self._clock() < deadline and self.step() == 0.0:
            continue
        leaving = [replica for replica in self._replicas if replica not in self._spool and replica not in self.kept]
        while goodbye and leaving and self._away_until <= self._clock() < deadline:
            self._attempt(partial(self._forget, leaving.pop()))

    def _may_send(self, report: SpooledReport, now: float) -> bool:
        deferred = self._deferred.get(report.replica)
        return deferred is None or deferred.until <= now

    def _next_due(self, now: float) -> float | None:
        moments = [deferred.until for replica, deferred in self._deferred.items() if replica in self._spool]
        moments += [state.due for state in list(self._replicas.values())[:1]]
        if not self._spool.attached:
            moments.append(self._attach_at)
        return max(0.0, min(moments) - now) if moments else None

    def _attempt(self, send: Callable[[], None]) -> None:
        """Send; leave the service alone for a while where it is away."""
        try:
            send()
        except UnavailableError as error:
            self.counts.failures += 1
            self.counts.last_failure = str(error)
            wait = self._backoff.fail(error.retry_after)
            self._away_until = self._clock() + wait
            log.debug("%s; the next attempt follows in %.1f s", error, wait)
            for pending in self._pending.values():
                pending.fail(str(error))
        else:
            self._backoff.succeed()

    def _put(self, report: SpooledReport) -> None:
        replica = report.replica
        body = self._spool.read(replica)
        pending = self._pending.get(replica)
        if body is None:
            if pending is not None:
                self._pending.pop(replica).fail("its file in the spool was damaged")
            return
        try:
            headers = {"Content-Type": "application/json"}
            params = {"replica": replica}
            timeout = httpx.Timeout(self._connection.timeout, read=max(self._connection.timeout, JUDGING_S))
            response = self._connection.send(
                "PUT", self._path, content=body, params=params, headers=headers, timeout=timeout
            )
        except PreshuffleError as error:
            if not isinstance(error, ClientError) or error.status in _NEVER_VALID:
                self._spool.remove(replica)
                self._refuse(self._pending.pop(replica, None), replica, str(error))
            else:
                self._defer(replica, pending, str(error))
            return
        except UnavailableError as error:
            if error.status != _OF_THIS_REPORT:
                raise
            self._defer(replica, pending, str(error), error.retry_after)
            return
        self._delivered(replica, body, Told(receipt=read_receipt(response)), self._pending.get(replica))

    def _delivered(self, replica: int, body: bytes, told: Told, pending: PendingReport | None) -> None:
        assert told.receipt is not None
        self._spool.remove(replica)
        self._deferred.pop(replica, None)
        self.counts.delivered += 1
        self.counts.unchanged += not told.receipt.changed
        if pending is not None or replica in self._replicas:  # else it is of an earlier process, which has ended
            self._replicas[replica] = _Replica(body, self._clock() + self._interval_s)
            self._replicas.move_to_end(replica)
        if told.verdict in REFUSED:
            log.warning("replica %d is %s: %s", replica, told.verdict, "; ".join(told.fixes) or ", ".join(told.codes))
        if pending is not None:
            self._pending.pop(replica).answer(told)

    def _beat(self, replica: int, state: _Replica) -> None:
        try:
            self._connection.send("POST", f"{self._path}/heartbeat", params={"replica": replica})
            self.counts.heartbeats += 1
        except ClientError as error:
            if error.kind == "unknown-deployment":  # its store is another one, or somebody forgot this replica
                self.counts.reported_again += 1
                self._spool.put(replica, state.body)
            else:
                log.warning("the heartbeat of replica %d is refused: %s", replica, error)
        state.due = self._clock() + self._interval_s
        self._replicas.move_to_end(replica)

    def _forget(self, replica: int) -> None:
        try:
            self._connection.send("DELETE", self._path, params={"replica": replica})
        except ClientError as error:
            if error.kind != "unknown-deployment":
                log.warning("replica %d is not forgotten: %s", replica, error)

    def _defer(self, replica: int, pending: PendingReport | None, why: str, retry_after: float | None = None) -> None:
        """Leave one report alone for a while; others may be delivered."""
        deferred = self._deferred.setdefault(replica, _Deferred())
        if not deferred.until:
            log.warning("the report of replica %d waits: %s", replica, why)
        deferred.until = self._clock() + deferred.backoff.fail(retry_after)
        self.counts.last_failure = why
        if pending is not None:
            pending.fail(why)

    def _refuse(self, pending: PendingReport | None, replica: int, why: str) -> None:
        self.counts.refused += 1
        log.error("the report of replica %d is not valid: %s", replica, why)
        if pending is not None:
            pending.fail(why)

"""Reporter: reports and heartbeats of an engine, sent by a background thread.

Nothing in it blocks or raises into the engine. While the service is away, reports wait on disk.

    >>> from preshuffle.api.client import Reporter, ServiceSettings
    >>> from preshuffle.registry import Observation, Query
    >>> seen = Observation(query=Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype="fp4x2"))
    >>> with Reporter("prod", settings=ServiceSettings()) as reporter:  # no service: the embedded book judges
    ...     reply = reporter.report({layer: seen for layer in range(36)}).raise_if("mismatch")
    >>> reply.source, reply.value.verdict
    ('embedded', 'unknown')
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import httpx

from preshuffle.api.client.connection import ServiceConnection
from preshuffle.api.client.delivery import Delivery, DeliveryCounts
from preshuffle.api.client.lifetimes import LIFETIMES
from preshuffle.api.client.pending import Observed, PendingReport
from preshuffle.api.client.settings import ServiceSettings
from preshuffle.api.client.spool import Spool
from preshuffle.api.fleet import PipelineStage, report_number
from preshuffle.registry.base.errors import PreshuffleError, QueryError

if TYPE_CHECKING:
    from preshuffle.registry import Registry

log = logging.getLogger("preshuffle.client")

CLOSE_S: Final = 2.0
"""Seconds that an exit may take for what is left to send."""
_BEATS_PER_TTL: Final = 3
_AFTER_ERROR_S: Final = 5.0
_OF_EVERY_REPORT: Final = ("ttl_s", "labels", "owner", "link", "pipeline")
_MAX_QUEUED: Final = 65_536
"""Reports that may wait to be read by the thread."""


@dataclass
class ReporterStats(DeliveryCounts):
    """What a reporter has done, and what waits.

    Attributes:
        waiting: reports that wait for the service.
        waiting_bytes: their size.
        corrupted: files of waiting reports that were skipped because they are damaged.
        dropped: reports that were given up because too many waited.
        in_memory: reports that could not be written to disk.
    """

    waiting: int = 0
    waiting_bytes: int = 0
    corrupted: int = 0
    dropped: int = 0
    in_memory: int = 0


@dataclass(frozen=True, slots=True)
class _Stop:
    """Order to end: send what waits until a time, then forget the replicas."""

    deadline: float
    goodbye: bool


class Reporter:
    """Thread-safe background reporter of one engine.

    Each replica's newest report is delivered once: an older one that still waits is replaced by it. Reports that wait
    when the process is killed are delivered by the next reporter of the same deployment and replica. Heartbeats are
    sent until the end of the process, which forgets the replicas that it reported.

    After a fork the child's copy begins anew: it sends nothing until it reports.

    Attributes:
        settings: where and as what it reports.
        problem: why it reports to no service; None if it does.
    """

    def __init__(
        self,
        deployment: str | None = None,
        *,
        replica: int | None = None,
        pipeline: PipelineStage | None = None,
        settings: ServiceSettings | None = None,
        registry: Registry | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Begin to deliver what an earlier process left.

        Wrong settings are logged, and the embedded book judges then.

        Args:
            deployment: name to report as; else the settings'.
            replica: number of this engine; else the settings'.
            pipeline: which stage of its pipeline this process is; else the settings'.
            settings: of the service; those of the environment where none are given.
            registry: the embedded one; by default the packaged book, loaded on first use.
            transport: of httpx, for special connections (a proxy, a socket).
        """
        self.settings, self.problem = _settings(settings, deployment, replica, pipeline)
        self._registry, self._transport = registry, transport
        self._closed = False
        if self.problem is None:
            self._begin()
            self._start()
        elif self.settings.url is not None:
            log.error("reports go to no service: %s", self.problem)

    def __enter__(self) -> Reporter:
        """Return the reporter."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; an engine that failed is not forgotten."""
        self.close(goodbye=kind is None or issubclass(kind, SystemExit | KeyboardInterrupt))

    def report(
        self,
        observed: Observed,
        *,
        replica: int | None = None,
        aiter_build: str | None = None,
        registry_digest: str | None = None,
    ) -> PendingReport:
        """Report what was observed, and return at once.

        Args:
            observed: groups of layers, or one observation per layer.
            replica: that it is of; by default this engine's. Several replicas may report through one reporter.
            aiter_build: AITER's version there, in full.
            registry_digest: of the registry that the engine itself used.
        """
        of = self.settings.replica if replica is None else replica
        fields: dict[str, Any] = {name: getattr(self.settings, name) for name in _OF_EVERY_REPORT}
        fields |= {"node": self.settings.node or socket.gethostname()[:256] or None}
        fields |= {"aiter_build": aiter_build, "registry_digest": registry_digest}
        stated = {name: value for name, value in fields.items() if value is not None}
        number, why = of, self._obstacle(of)
        if why is None:
            try:
                number = report_number(of, self.settings.pipeline)
            except QueryError as error:
                why = str(error)
        pending = PendingReport(number, observed, stated, self._embedded, self._keep)
        if why is None:
            self._queue.put(pending)
        else:
            pending.fail(why)
        return pending

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until no report waits; return whether that is so."""
        if self.problem is not None or self._closed or self._thread is None:
            return self.stats.waiting == 0
        idle = threading.Event()
        self._queue.put(idle)
        return idle.wait(timeout)

    def close(self, timeout: float = CLOSE_S, *, goodbye: bool = True) -> None:
        """Send what waits, forget the replicas that were reported, and end.

        What cannot be sent in time stays on disk.

        Args:
            timeout: seconds that it may take.
            goodbye: false leaves the replicas known to the service; they become stale.
        """
        deadline = time.monotonic() + timeout
        self.stop(deadline, goodbye=goodbye)
        self.join(deadline)

    @property
    def stats(self) -> ReporterStats:
        """What has been done so far, and what waits."""
        if self.problem is not None:
            return ReporterStats()
        spool = self._spool
        return ReporterStats(
            **vars(self._delivery.counts),
            waiting=len(spool),
            waiting_bytes=spool.size,
            corrupted=spool.corrupted,
            dropped=spool.dropped,
            in_memory=spool.in_memory,
        )

    def stop(self, deadline: float, *, goodbye: bool) -> None:
        """Begin to end, until a time of the monotonic clock."""
        if self._closed or self.problem is not None:
            return
        self._closed = True
        self._queue.put(_Stop(deadline, goodbye and self.settings.goodbye))

    def join(self, deadline: float) -> None:
        """Wait for the end, until a time of the monotonic clock."""
        thread = None if self.problem is not None else self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))

    def forked(self) -> None:
        """Begin anew in a child process.

        What waits, and heartbeats, are the parent's.
        """
        if self.problem is None:
            # kept, so that nothing closes a TLS session that the parent uses
            self._inherited = self._delivery, self._queue, self._connection
            self._spool.close()
            self._begin()

    def _begin(self) -> None:
        settings = self.settings
        assert settings.url is not None
        assert settings.deployment is not None
        self._connection = ServiceConnection(
            settings.url,
            token=settings.token,
            token_file=settings.token_file,
            ca_file=settings.ca_file,
            cert_file=settings.cert_file,
            key_file=settings.key_file,
            timeout=settings.timeout_s,
            transport=self._transport,
        )
        self._spool = Spool(
            settings.spool_folder(),
            settings.deployment,
            max_bytes=int(settings.spool_mib * (1 << 20)),
            max_entries=settings.spool_entries,
        )
        interval_s = settings.ttl_s / _BEATS_PER_TTL
        self._delivery = Delivery(settings.deployment, self._connection, self._spool, interval_s=interval_s)
        self._queue: queue.SimpleQueue[PendingReport | threading.Event | _Stop] = queue.SimpleQueue()
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def _start(self) -> bool:
        """Start the thread unless it runs; return whether it does."""
        with self._start_lock:
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="preshuffle-reporter", daemon=True)
                try:
                    LIFETIMES.add(self)
                    thread.start()
                except RuntimeError as error:  # the process is ending, or may have no more threads
                    log.error("reports are not sent: %s", error)
                    return False
                self._thread = thread
        return True

    def _obstacle(self, replica: int) -> str | None:
        """Return why a report cannot be delivered."""
        if self.problem is not None:
            return self.problem
        if self._closed:
            return "the reporter is closed"
        if not 0 <= replica <= 65_535:
            return f"{replica} is not a replica; valid: 0 to 65535"
        if self._queue.qsize() >= _MAX_QUEUED:
            return "too many reports wait to be read"
        return None if self._start() else "no thread can be started"

    def _keep(self, replica: int) -> None:
        if self.problem is None:
            self._delivery.kept.add(replica)

    def _embedded(self) -> Registry:
        if self._registry is None:
            from preshuffle.registry import Registry

            self._registry = Registry.default()
        return self._registry

    def _work(self) -> None:
        """Deliver until told to stop; an error of this code never ends it."""
        delivery, orders, flushed = self._delivery, self._queue, list[threading.Event]()
        wait: float | None = 0.0
        while True:
            order = _next(orders, wait)
            try:
                if isinstance(order, _Stop):
                    self._end(order)
                    return
                if isinstance(order, PendingReport):
                    delivery.accept(order)
                elif order is not None:
                    flushed.append(order)
                # what a replica has reported meanwhile may replace what would be sent
                wait = 0.0 if order is not None else delivery.step()
            except Exception as error:
                log.exception("a report could not be sent")
                if isinstance(order, PendingReport):
                    order.fail(f"{type(error).__name__}: {error}")
                wait = _AFTER_ERROR_S
            if delivery.idle and order is None:
                while flushed:
                    flushed.pop().set()

    def _end(self, order: _Stop) -> None:
        try:
            self._delivery.finish(order.deadline, goodbye=order.goodbye)
        except Exception:
            log.exception("the last reports could not be sent")
        finally:
            self._spool.close()
            self._connection.close()


def _settings(
    settings: ServiceSettings | None, deployment: str | None, replica: int | None, pipeline: PipelineStage | None
) -> tuple[ServiceSettings, str | None]:
    """Return the settings, and why no service is reported to."""
    try:
        given = {} if settings is None else settings.model_dump(exclude_unset=True)
        named = {"deployment": deployment, "replica": replica, "pipeline": pipeline}
        given |= {name: value for name, value in named.items() if value is not None}
        found = ServiceSettings.from_env(None if settings is None else {}, **given)
    except PreshuffleError as error:
        log.error("reports go to no service: %s", error)
        return ServiceSettings(), str(error)
    if found.url is None:
        return found, "no service is configured"
    return found, None if found.deployment else "no deployment is named; set PRESHUFFLE_SERVICE_DEPLOYMENT"


def _next(orders: queue.SimpleQueue[Any], wait: float | None) -> Any:
    """Return the next order; None if there is none in time."""
    try:
        return orders.get(timeout=wait) if wait != 0.0 else orders.get_nowait()
    except queue.Empty:
        return None

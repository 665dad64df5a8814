"""Reporter for asyncio: the same background thread, results to await."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

import httpx

from preshuffle.api.client.pending import TIMEOUT_S, Observed, PendingReport
from preshuffle.api.client.replies import Reply, Told
from preshuffle.api.client.reporter import CLOSE_S, Reporter, ReporterStats
from preshuffle.api.client.settings import ServiceSettings
from preshuffle.api.fleet import PipelineStage
from preshuffle.registry.values.report import Verdict

if TYPE_CHECKING:
    from preshuffle.registry import Registry


class AsyncPendingReport:
    """Result of a report to await; see ``PendingReport``."""

    def __init__(self, pending: PendingReport) -> None:
        """Wrap a result."""
        self._pending = pending

    @property
    def done(self) -> bool:
        """Whether ``result`` returns without waiting for the service."""
        return self._pending.done

    async def result(self, timeout: float = TIMEOUT_S) -> Reply[Told]:
        """Return the service's reply; without one, the embedded book's.

        Args:
            timeout: seconds to wait for the service.
        """
        return await asyncio.to_thread(self._pending.result, timeout)

    async def raise_if(self, *verdicts: Verdict, timeout: float = TIMEOUT_S) -> Reply[Told]:
        """Raise if the verdict is one of these.

        Where none is named, those are ``mismatch`` and ``unsupported``.

        Args:
            verdicts: that are not accepted.
            timeout: seconds to wait for the service.

        Raises:
            VerdictError: it is.
            ValueError: no verdict has this name.
        """
        return await asyncio.to_thread(self._pending.raise_if, *verdicts, timeout=timeout)


class AsyncReporter:
    """Background reporter of one engine, for asyncio; see ``Reporter``.

    A thread sends and writes to disk, so that heartbeats go on while the event loop is busy.
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
        """Take the arguments of ``Reporter``."""
        self._reporter = Reporter(
            deployment,
            replica=replica,
            pipeline=pipeline,
            settings=settings,
            registry=registry,
            transport=transport,
        )

    async def __aenter__(self) -> AsyncReporter:
        """Return the reporter."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; an engine that failed is not forgotten."""
        stopped = kind is None or issubclass(kind, SystemExit | KeyboardInterrupt | asyncio.CancelledError)
        await self.close(goodbye=stopped)

    @property
    def settings(self) -> ServiceSettings:
        """Where and as what it reports."""
        return self._reporter.settings

    @property
    def problem(self) -> str | None:
        """Why it reports to no service; None if it does."""
        return self._reporter.problem

    @property
    def stats(self) -> ReporterStats:
        """What has been done so far, and what waits."""
        return self._reporter.stats

    def report(
        self,
        observed: Observed,
        *,
        replica: int | None = None,
        aiter_build: str | None = None,
        registry_digest: str | None = None,
    ) -> AsyncPendingReport:
        """Report what was observed, and return at once; see ``Reporter.report``."""
        return AsyncPendingReport(
            self._reporter.report(observed, replica=replica, aiter_build=aiter_build, registry_digest=registry_digest)
        )

    async def flush(self, timeout: float = 10.0) -> bool:
        """Wait until no report waits; return whether that is so."""
        return await asyncio.to_thread(self._reporter.flush, timeout)

    async def close(self, timeout: float = CLOSE_S, *, goodbye: bool = True) -> None:
        """Send what waits, forget the replicas that were reported, and end."""
        await asyncio.to_thread(self._reporter.close, timeout, goodbye=goodbye)

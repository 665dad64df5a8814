"""Report of a model's layers: collected while it loads, sent once."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from preshuffle.registry import Decision, Observation, Registry

if TYPE_CHECKING:
    from preshuffle.api.client import PendingReport, Reporter

log = logging.getLogger("preshuffle.plugins")


class ModelLoad:
    """Observations of one process's layers, and the reporter that they go to.

    Attributes:
        observations: by number of the layer.
        sent: how many reports were given to the reporter.
        reply: thread that waits for the newest report's judgement and logs it; None before the first report.
    """

    def __init__(self, registry: Registry) -> None:
        """Begin without layers."""
        self.observations: dict[int, Observation] = {}
        self.decisions: dict[int, Decision] = {}
        self.sent = 0
        self.reply: threading.Thread | None = None
        self._registry = registry
        self._reporters: dict[bool, Reporter] = {}

    def add(self, number: int, observation: Observation, decision: Decision | None) -> None:
        """Add an observation of a layer, instead of an earlier one."""
        self.observations[number] = observation
        self.decisions.pop(number, None)
        if decision is not None:
            self.decisions[number] = decision

    def observe_call(self, number: int, observation: Observation) -> None:
        """Replace a layer's observation by one with its call."""
        if number in self.observations:
            self.observations[number] = observation

    def send(self, *, to_service: bool) -> None:
        """Report all layers, and log the judgement when there is one.

        Args:
            to_service: false lets the embedded book judge: one rank of a replica reports to the service.

        Raises:
            ImportError: the client is not installed.
        """
        if not self.observations:
            return
        from preshuffle.api.client import group_layers

        groups = group_layers(self.observations, self.decisions)
        pending = self._reporter(to_service).report(groups, registry_digest=self._registry.digest)
        self.sent += 1
        self.reply = threading.Thread(target=_log_reply, args=(pending,), name="preshuffle-verdict", daemon=True)
        self.reply.start()

    def _reporter(self, to_service: bool) -> Reporter:
        if to_service not in self._reporters:
            from preshuffle.api.client import Reporter, ServiceSettings

            settings: dict[str, Any] = {} if to_service else {"settings": ServiceSettings()}
            self._reporters[to_service] = Reporter(registry=self._registry, **settings)
        return self._reporters[to_service]


def _log_reply(pending: PendingReport) -> None:
    try:
        reply = pending.result()
        codes = ", ".join(dict.fromkeys(reply.value.codes)) or "no findings"
        level = logging.WARNING if reply.value.verdict in ("mismatch", "unsupported") else logging.INFO
        log.log(level, "the layers as loaded: %s (%s; %s)", reply.value.verdict, codes, reply.source)
    except Exception:
        log.exception("the judgement of a report could not be read")

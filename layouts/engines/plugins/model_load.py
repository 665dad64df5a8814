"""Report of a model's layers: collected while it loads, sent once."""

from __future__ import annotations

import logging
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from preshuffle.layouts.engines.live_values import LiveObject
from preshuffle.registry import Decision, Observation, Registry
from preshuffle.registry.entries import PipelineFacts

if TYPE_CHECKING:
    from preshuffle.api.client import PendingReport, Reporter

log = logging.getLogger("preshuffle.plugins")


@dataclass(frozen=True, slots=True)
class LiveStage:
    """Stage of an engine's pipeline that this process is part of.

    Attributes:
        number: counted from 0.
        stages: how many there are.
        is_first_peer: whether it is the first of the processes that share the stage's layers.
    """

    number: int
    stages: int
    is_first_peer: bool


def stage_of(facts: PipelineFacts | None) -> LiveStage | None:
    """Return this process's pipeline stage, if there are several.

    None where the engine does not say.
    """
    if facts is None:
        return None
    group, peers = _group(facts.group), _group(facts.peers)
    number, stages = group.raw(facts.rank), group.raw(facts.size)
    if not (isinstance(number, int) and isinstance(stages, int)) or stages < 2:
        return None
    return LiveStage(number, stages, peers.raw(facts.rank) == 0)


def _group(path: str) -> LiveObject:
    """Return what an engine's function returns; nothing without groups, where it raises or nobody has imported it."""
    module, _, name = path.rpartition(".")
    try:
        return LiveObject(getattr(sys.modules[module], name)())
    except Exception:
        return LiveObject(None)


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

    def send(self, *, to_service: bool, stage: LiveStage | None = None) -> None:
        """Report all layers, and log the judgement when there is one.

        A stage without such layers reports, too: the service waits for all stages of a replica.

        Args:
            to_service: false lets the embedded book judge: one rank of each stage reports to the service.
            stage: of the pipeline that this process is; None where there is one.

        Raises:
            ImportError: the client is not installed.
        """
        if not self.observations and (stage is None or not to_service):
            return
        from preshuffle.api.client import group_layers

        groups = group_layers(self.observations, self.decisions)
        pending = self._reporter(to_service, stage).report(groups, registry_digest=self._registry.digest)
        self.sent += 1
        self.reply = threading.Thread(target=_log_reply, args=(pending,), name="preshuffle-verdict", daemon=True)
        self.reply.start()

    def _reporter(self, to_service: bool, stage: LiveStage | None) -> Reporter:
        if to_service not in self._reporters:
            from preshuffle.api.client import PipelineStage, Reporter, ServiceSettings

            settings: dict[str, Any] = {} if to_service else {"settings": ServiceSettings()}
            if stage is not None:
                settings["pipeline"] = PipelineStage(stage=stage.number, stages=stage.stages)
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

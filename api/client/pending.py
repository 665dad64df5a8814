"""Result of a report that is delivered in the background."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Final

from preshuffle.api.client.groups import group_layers
from preshuffle.api.client.replies import Reply, Told, check_embedded, checked_verdicts
from preshuffle.api.fleet import Group, ReplicaReport
from preshuffle.registry.base.errors import FieldProblem, PreshuffleError, QueryError
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.report import Report, Verdict

if TYPE_CHECKING:
    from preshuffle.registry import Registry

log = logging.getLogger("preshuffle.client")

Observed = Sequence[Group] | Mapping[int, Observation]
"""What is reported: groups of layers, or one observation per layer."""
TIMEOUT_S: Final = 5.0
"""Seconds that a result is waited for, unless the caller says otherwise."""


class PendingReport:
    """Result of a report, once there is one.

    The service's reply, or the judgement of the embedded book where the service did not answer. It belongs to the
    process that reported.
    """

    def __init__(
        self,
        replica: int,
        observed: Observed,
        fields: Mapping[str, Any],
        registry: Callable[[], Registry],
        refused: Callable[[int], None],
    ) -> None:
        """Take what was reported.

        Args:
            replica: that it is of.
            observed: layers with their observations.
            fields: other fields of the report.
            registry: returns the embedded one.
            refused: called with the replica when ``raise_if`` raises.
        """
        self.replica = replica
        self._observed, self._fields = observed, fields
        self._registry, self._refused = registry, refused
        self._attempted, self._lock = Event(), Lock()
        self._reply: Reply[Told] | None = None
        self._embedded: Told | None = None
        self._why: str | None = None

    @property
    def done(self) -> bool:
        """Whether ``result`` returns without waiting for the service."""
        return self._attempted.is_set()

    def result(self, timeout: float = TIMEOUT_S) -> Reply[Told]:
        """Return the service's reply; without one, the embedded book's.

        The embedded book judges in this thread. Nothing is raised: a report that is not valid is ``unknown``, with the
        reason among the notes.

        Args:
            timeout: seconds to wait for the service.
        """
        self._attempted.wait(timeout)
        reply = self._reply
        if reply is not None:
            return reply
        why = self._why or f"no answer within {timeout:g} s"
        with self._lock:
            if self._embedded is None:
                self._embedded = self._judge()
        return Reply(self._embedded, "embedded", why)

    def raise_if(self, *verdicts: Verdict, timeout: float = TIMEOUT_S) -> Reply[Told]:
        """Raise if the verdict is one of these.

        Where none is named, those are ``mismatch`` and ``unsupported``. The replica is not forgotten at exit then, so
        that the service shows why the engine did not start.

        Args:
            verdicts: that are not accepted.
            timeout: seconds to wait for the service.

        Raises:
            VerdictError: it is.
            ValueError: no verdict has this name.
        """
        named = checked_verdicts(verdicts)
        reply = self.result(timeout)
        if reply.value.verdict in named:
            self._refused(self.replica)
        reply.value.raise_if(*named)
        return reply

    def build(self) -> ReplicaReport:
        """Return the report.

        Raises:
            QueryError: it is not valid.
        """
        observed = self._observed
        try:
            groups = group_layers(observed) if isinstance(observed, Mapping) else tuple(observed)
        except (AttributeError, TypeError, ValueError) as error:  # not what the types say
            raise QueryError([FieldProblem("groups", f"{error}; valid: groups, or observations by layer")]) from None
        return ReplicaReport.parse({**self._fields, "groups": groups})

    def answer(self, told: Told) -> None:
        """Set the service's reply."""
        self._reply = Reply(told)
        self._attempted.set()

    def fail(self, why: str) -> None:
        """Say why the service did not answer; it may do so later."""
        self._why = why
        self._attempted.set()

    def _judge(self) -> Told:
        try:
            return check_embedded(self._registry(), self.build())
        except PreshuffleError as error:
            return Told(report=Report(verdict="unknown", notes=(str(error),)))
        except Exception as error:
            log.exception("the embedded book could not judge a report")
            return Told(report=Report(verdict="unknown", notes=(f"{type(error).__name__}: {error}",)))

"""What a check says: one verdict for an operator, and the findings that it rests on."""

from __future__ import annotations

from typing import Literal

from preshuffle.registry.decision import Decision, Finding
from preshuffle.registry.query import Frozen

Verdict = Literal["ok", "degraded", "unknown", "unsupported", "mismatch"]


class Report(Frozen):
    """The outcome of ``Registry.check``.

    Attributes:
        verdict: ``mismatch`` (wrong answers must be expected), ``unsupported`` (it cannot work, or is known not to),
            ``degraded`` (right but slow, or in other numerics), ``unknown`` (too little was observed), or ``ok``.
        findings: everything found, errors first.
        decision: what the registry would do for the query; only where it was asked for and there is a recipe.
    """

    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    decision: Decision | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong: ``ok`` or ``degraded``."""
        return self.verdict in ("ok", "degraded")

"""Report of a check: a verdict and its findings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.values.decision import Decision, ObservedRead
from preshuffle.registry.values.finding import Finding

Verdict = Literal["ok", "degraded", "unknown", "unsupported", "mismatch"]

MEANINGS: Final[dict[Verdict, str]] = {
    "ok": "nothing is wrong with what was observed",
    "degraded": "right, but slow or in other numerics than the checkpoint wants",
    "unknown": "too little was observed to judge: the layout of w13, or every kernel that could read it",
    "unsupported": "it cannot work, or is known not to",
    "mismatch": "wrong answers must be expected",
}
"""What each verdict says, the best first."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of several verdicts; nothing known is ``unknown``.

    Example:
        >>> worst(["ok", "unknown", "degraded"])
        'unknown'
    """
    return max(verdicts, key=rank, default="unknown")


def rank(verdict: Verdict) -> int:
    """Return how bad a verdict is; 0 for ``ok``."""
    return list(MEANINGS).index(verdict)


class Report(Frozen):
    """The outcome of ``Registry.check``.

    Attributes:
        verdict: ``mismatch`` (wrong answers must be expected), ``unsupported`` (it cannot work, or is known not to),
            ``degraded`` (right but slow, or in other numerics), ``unknown`` (too little was observed), or ``ok``.
        findings: everything found, errors first.
        notes: what limits the answer without being wrong: an engine, or a version of it, that the book does not know.
        reads: what the kernels read, under the most plausible call, and how that is known: AITER's, and those of
            backends that have their own.
        decision: what the registry would do for the query; only where it was requested and there is a recipe.
    """

    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    reads: tuple[ObservedRead, ...] = ()
    decision: Decision | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong: ``ok`` or ``degraded``."""
        return self.verdict in ("ok", "degraded")

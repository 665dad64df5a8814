"""States of deployments: the verdict, or drift or staleness where worse."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from preshuffle.registry.values.report import MEANINGS as VERDICTS
from preshuffle.registry.values.report import Verdict

State = Literal["ok", "degraded", "unknown", "drifted", "stale", "unsupported", "mismatch"]

STATES: Final[dict[State, str]] = {
    "ok": VERDICTS["ok"],
    "degraded": VERDICTS["degraded"],
    "unknown": VERDICTS["unknown"],
    "drifted": "consistent, but the registry now decides otherwise than when it was loaded",
    "stale": "no report or heartbeat for longer than its ttl_s",
    "unsupported": VERDICTS["unsupported"],
    "mismatch": VERDICTS["mismatch"],
}
"""Meaning of each state, the best first."""

_ORDER: Final = list(STATES)


def state_rank(state: State) -> int:
    """Return how bad a state is; 0 for ``ok``."""
    return _ORDER.index(state)


INCOMPLETE: Final = "some stages of a pipeline have not reported: the verdict is that of the others"
"""Meaning of ``incomplete``, which is shown in place of a state that is not as bad as ``stale``."""


def shown_with_missing(state: State, incomplete: bool) -> State | Literal["incomplete"]:
    """Return a deployment's shown state, or ``incomplete`` in its place.

    Example:
        >>> shown_with_missing("ok", True), shown_with_missing("mismatch", True)
        ('incomplete', 'mismatch')
    """
    return "incomplete" if incomplete and state_rank(state) < state_rank("stale") else state


def worst_state(states: Iterable[State]) -> State:
    """Return the worst of several states; ``unknown`` for none.

    Example:
        >>> worst_state(["ok", "stale", "drifted"])
        'stale'
    """
    return max(states, key=state_rank, default="unknown")


def state_of(verdict: Verdict, *, drifted: bool = False, silent: bool = False) -> State:
    """Return the state of a replica.

    Example:
        >>> state_of("ok", drifted=True)
        'drifted'
        >>> state_of("mismatch", drifted=True, silent=True)
        'mismatch'
    """
    states: list[State] = [verdict]
    if drifted:
        states.append("drifted")
    if silent:
        states.append("stale")
    return worst_state(states)

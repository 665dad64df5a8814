"""The state of a deployment: its verdict, unless something weighs more: it is silent, or the registry moved on."""

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
    "drifted": "right in itself, but the registry decides otherwise now than when it was loaded",
    "stale": "silent for longer than its ttl_s",
    "unsupported": VERDICTS["unsupported"],
    "mismatch": VERDICTS["mismatch"],
}
"""What each state says, the best first."""

_ORDER: Final = list(STATES)


def worst_state(states: Iterable[State]) -> State:
    """Return the worst of several states; nothing known is ``unknown``.

    Example:
        >>> worst_state(["ok", "stale", "drifted"])
        'stale'
    """
    return max(states, key=_ORDER.index, default="unknown")


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

"""Kind of reason for a decision: what its rule depends on."""

from __future__ import annotations

from collections.abc import Iterable

from preshuffle.registry.entries import Condition
from preshuffle.registry.loading import Book, Prepared
from preshuffle.registry.values.decision import ReasonKind

_ENGINE = frozenset({"engine", "engine_version"})


def reason_kind(book: Book, winner: Prepared, switches: Iterable[str]) -> ReasonKind:
    """Classify why a rule won; the first kind below that applies counts.

    1. ``overlay``: the rule comes from an overlay (or from code), not from the packaged book.
    2. ``switch``: it wants a value of an environment switch that the query sets; a default decides nothing.
    3. ``exact``: it names the model by its id, alone or in a list, not by a glob.
    4. ``engine``: it wants an engine or a version of it.
    5. ``general``: none of these.

    A condition that a field is absent (null) makes a rule no less general.

    Args:
        book: Knows the file of each rule.
        winner: The rule that decided.
        switches: Environment switches that the query sets and somebody reads.
    """
    place = book.places.get(("rules", winner.rule.id))
    if place is None or not place.packaged:
        return "overlay"
    wanted = {field for field, condition in winner.conditions.items() if not _is_absence(condition)}
    if any(f"env.{name}" in wanted for name in switches):
        return "switch"
    if "model" in wanted and winner.conditions["model"].values:
        return "exact"
    return "engine" if wanted & _ENGINE else "general"


def _is_absence(condition: Condition) -> bool:
    return condition.values == (None,)

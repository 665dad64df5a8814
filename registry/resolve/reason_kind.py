"""Kind of reason for a decision: what its rule depends on."""

from __future__ import annotations

from preshuffle.registry.entries import Condition
from preshuffle.registry.loading import Book, Prepared
from preshuffle.registry.values.decision import ReasonKind

_ENGINE = frozenset({"engine", "engine_version"})


def reason_kind(book: Book, winner: Prepared) -> ReasonKind:
    """Classify why a rule won; the first kind below that applies counts.

    1. ``overlay``: the rule comes from an overlay (or from code), not from the packaged book.
    2. ``switch``: it wants a value of an environment switch.
    3. ``engine``: it wants an engine or a version of it.
    4. ``exact``: it names the model by its id, alone or in a list, not by a glob.
    5. ``general``: none of these.

    A condition that a field is absent (null) makes a rule no less general.

    Args:
        book: Knows the file of each rule.
        winner: The rule that decided.
    """
    place = book.places.get(("rules", winner.rule.id))
    if place is None or not place.packaged:
        return "overlay"
    wanted = {field for field, condition in winner.conditions.items() if not _is_absence(condition)}
    if any(field.startswith("env.") for field in wanted):
        return "switch"
    if wanted & _ENGINE:
        return "engine"
    return "exact" if "model" in wanted and winner.conditions["model"].values else "general"


def _is_absence(condition: Condition) -> bool:
    return condition.values == (None,)

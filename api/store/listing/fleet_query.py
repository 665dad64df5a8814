"""Query of the fleet list: filters, order and place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from preshuffle.api.fleet import State

Order = Literal["state", "name", "since", "seen", "node", "model", "arch", "engine", "code", "owner", "label"]
Grouping = Literal["state", "node", "model", "arch", "engine", "code", "owner", "label"]

COLUMNS: Final[dict[str, str]] = {
    "node": "node",
    "model": "models",
    "arch": "archs",
    "engine": "engines",
    "code": "codes",
}
"""Columns of ``replica_facts`` by filter."""
SEVERAL: Final = frozenset(COLUMNS.values()) - {"node"}
"""Those that hold several values."""


@dataclass(frozen=True, slots=True)
class FleetFilter:
    """Which deployments are listed; empty fields filter nothing.

    A replica must have all of ``facts``; names of deployments are as they are.

    Attributes:
        states: any of these, of the whole deployment.
        part: of the name, ignoring case.
        facts: by field of ``COLUMNS``, values any of which a replica has; a trailing ``*`` stands for the rest.
        labels: keys and values that it has all of; None for any value.
        owners: any of these.
        silenced: whether a silence lasts; None: either.
        incomplete: whether stages of a replica's pipeline have not reported; None: either.
    """

    states: tuple[State, ...] = ()
    part: str = ""
    facts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    labels: tuple[tuple[str, str | None], ...] = ()
    owners: tuple[str, ...] = ()
    silenced: bool | None = None
    incomplete: bool | None = None


@dataclass(frozen=True, slots=True)
class FleetOrder:
    """Order of the list.

    Attributes:
        by: ``state`` is the worst first, then the one longest in that state, the silenced last.
        label: whose value, where ``by`` is ``label``.
        reverse: the other way round.
    """

    by: Order = "state"
    label: str = ""
    reverse: bool = False


Place = tuple[int | str, str]
"""Value that a page was ordered by, and name, of its last deployment."""

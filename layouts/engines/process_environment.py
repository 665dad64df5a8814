"""Environment that a decision needs, beside that of this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Literal

from preshuffle.registry import Decision, LayoutError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.layer import value_of
from preshuffle.registry.loading import Book

OnDifference = Literal["refuse", "tell", "set"]


class EnvironmentDifference(Frozen):
    """A variable or an option whose value is not the needed one.

    Attributes:
        found: its value; None where it is unset and has no default.
        in_time: whether setting it now still takes effect.
    """

    name: str
    needed: str
    found: str | None
    in_time: bool

    def __str__(self) -> str:
        """Return what to set, and when."""
        now = "" if self.in_time else "; what reads it has read it already: set it before the process starts"
        return f"{self.name} must be {self.needed}, found {'nothing' if self.found is None else self.found}{now}"


def environment_differences(
    decision: Decision, book: Book, environment: Mapping[str, str], options: Mapping[str, str] | None = None
) -> tuple[EnvironmentDifference, ...]:
    """Return what a decision needs and the process has otherwise.

    A variable that is unset has its default.

    Args:
        decision: whose environment is needed.
        book: what is known of switches: their defaults, and when they are read.
        environment: of the process.
        options: of the engine's command line, as far as they are known.
    """
    found = {**environment, **(options or {})}
    differences = []
    for name, needed in decision.env.items():
        flag = book.flags.get(name)
        value = found.get(name, flag.default if flag is not None else None)
        same = value is not None and (value_of(flag, value) == value_of(flag, needed) if flag else value == needed)
        if not same:
            differences.append(
                EnvironmentDifference(name=name, needed=needed, found=value, in_time=_in_time(name, book))
            )
    return tuple(differences)


def settle(
    differences: tuple[EnvironmentDifference, ...],
    how: OnDifference,
    environment: MutableMapping[str, str] = os.environ,
) -> None:
    """Refuse, tell or set what differs.

    Raises:
        LayoutError: something differs (``refuse``), or can no longer be set (``set``).
    """
    late = [one for one in differences if how == "refuse" or (how == "set" and not one.in_time)]
    if late:
        raise LayoutError(f"this process's environment is not the decision's: {'; '.join(map(str, late))}")
    for one in differences if how == "set" else ():
        environment[one.name] = one.needed


def _in_time(name: str, book: Book) -> bool:
    """Return whether a switch can still be set: it is read at every call, or its reader is not imported yet."""
    flag = book.flags.get(name)
    if flag is None or name.startswith("-"):
        return False
    if flag.read == "call":
        return True
    entry = book.engines.get(flag.owner)
    module = (entry.module or flag.owner) if entry is not None else flag.owner
    return module not in sys.modules

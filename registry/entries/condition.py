"""Condition of a rule on one field: value, list, glob or range."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from preshuffle.registry.base.globs import MAX_GLOB, glob_test, globs_overlap, is_glob
from preshuffle.registry.base.versions import version_key

Scalar = str | int | bool | None
Kind = Literal["exact", "list", "pattern"]

_RANGE = re.compile(r"^\s*(>=|<=|>|<)\s*(\S+)\s*$")


@dataclass(frozen=True, slots=True)
class Interval:
    """Range over an ordered key; None is an open end."""

    low: Any = None
    low_closed: bool = True
    high: Any = None
    high_closed: bool = True

    def __contains__(self, key: Any) -> bool:
        """Whether a key lies in the range."""
        below = self.low is not None and (key < self.low or (key == self.low and not self.low_closed))
        above = self.high is not None and (key > self.high or (key == self.high and not self.high_closed))
        return not below and not above

    def intersect(self, other: Interval) -> Interval | None:
        """Return what two ranges share, or None."""
        lows = [(i.low, not i.low_closed) for i in (self, other) if i.low is not None]
        highs = [(i.high, i.high_closed) for i in (self, other) if i.high is not None]
        low, low_open = max(lows) if lows else (None, False)
        high, high_closed = min(highs) if highs else (None, True)
        if low is not None and high is not None and (low > high or (low == high and (low_open or not high_closed))):
            return None
        return Interval(low, not low_open, high, high_closed)


@dataclass(frozen=True, slots=True)
class Condition:
    """Condition on one field: value, list, glob or range.

    Attributes:
        field: the flat field name.
        kind: ``exact`` beats ``list`` beats ``pattern`` (a glob or a range).
        values: the values of an exact condition or a list.
        glob: the glob, where it is one.
        interval: the range, where it is one.
        text: how the book writes it.
        members: the values in a form in which equal ones are equal: with their type, versions parsed.
    """

    field: str
    kind: Kind
    text: str
    values: tuple[Scalar, ...] = ()
    glob: str | None = None
    interval: Interval | None = None
    versioned: bool = False
    members: frozenset[Any] = frozenset()

    @staticmethod
    def parse(field: str, value: Any, reading: str) -> Condition:
        """Parse the book's text for a field.

        ``reading`` is ``plain``, ``glob``, ``number`` or ``version``.

        Raises:
            ValueError: the value has no meaning there.
        """
        versioned = reading == "version"
        if isinstance(value, list | tuple):
            if not value or not all(_is_scalar(item) for item in value):
                raise ValueError(f"when.{field}: a list needs values (text, numbers, true/false)")
            for item in value:
                _check_exact(field, item, reading)
            members = _members(value, versioned)
            return Condition(field, "list", _values_text(value), tuple(value), versioned=versioned, members=members)
        if not _is_scalar(value):
            raise ValueError(f"when.{field}: {value!r} is neither a value nor a list of values")
        if isinstance(value, str) and reading == "glob" and is_glob(value):
            if len(value) > MAX_GLOB:
                raise ValueError(f"when.{field}: a glob has at most {MAX_GLOB} characters, found {len(value)}")
            if "[" in value:
                raise ValueError(f"when.{field}: {value!r}: a glob has '*' and '?' only")
            return Condition(field, "pattern", value, glob=value)
        if isinstance(value, str) and value[:1] in {"<", ">"}:
            if reading not in {"number", "version"}:
                raise ValueError(f"when.{field}: {value!r}: a range needs a field that counts, or a version")
            interval = _interval(field, value, _reader(versioned))
            return Condition(field, "pattern", value, interval=interval, versioned=versioned)
        _check_exact(field, value, reading)
        members = _members((value,), versioned)
        return Condition(field, "exact", _values_text([value]), (value,), versioned=versioned, members=members)

    def matches(self, value: Scalar) -> bool:
        """Whether a query's value satisfies the condition."""
        if self.glob is not None:
            return isinstance(value, str) and glob_test(self.glob)(value)
        if self.interval is not None:
            return value is not None and _lies_in(value, self.interval, _reader(self.versioned))
        return _member(value, self.versioned) in self.members

    def test(self) -> Callable[[Scalar], bool]:
        """Compile ``matches`` into a function for many calls.

        A query's values are validated, so 1 and true do not meet.
        """
        if self.glob is not None:
            matches = glob_test(self.glob)
            return lambda value: isinstance(value, str) and matches(value)
        if self.interval is not None and not self.versioned:
            interval, matches_text = self.interval, self.matches
            return lambda value: value in interval if type(value) is int else matches_text(value)
        if self.versioned:
            return self.matches
        return frozenset(self.values).__contains__

    def overlaps(self, other: Condition) -> bool:
        """Whether some value satisfies both conditions (decided, not sampled)."""
        if self.values and other.values and self.versioned == other.versioned:
            return not self.members.isdisjoint(other.members)
        if self.values:
            return any(other.matches(value) for value in self.values)
        if other.values:
            return other.overlaps(self)
        if self.glob is not None and other.glob is not None:
            return globs_overlap(self.glob, other.glob)
        if self.interval is not None and other.interval is not None:
            return self.interval.intersect(other.interval) is not None
        return False

    def within(self, other: Condition) -> bool:
        """Whether this condition provably implies the other; False where undecided."""
        if self.values and other.values and self.versioned == other.versioned:
            return self.members <= other.members
        if self.values:
            return all(other.matches(value) for value in self.values)
        if self.glob is not None:
            return other.glob in (self.glob, "*")
        if self.interval is not None and other.interval is not None:
            return self.interval.intersect(other.interval) == self.interval
        return False


def _member(value: Scalar, versioned: bool) -> Any:
    """Return a value in a form in which equal ones are equal, and 1 and true are not."""
    return version_key(value) if versioned and isinstance(value, str) else (type(value), value)


def _members(values: Sequence[Scalar], versioned: bool) -> frozenset[Any]:
    return frozenset(_member(value, versioned) for value in values)


def _lies_in(value: Scalar, interval: Interval, read: Callable[[Any], Any]) -> bool:
    try:
        return read(value) in interval
    except ValueError:  # a switch may hold any text; text is in no range
        return False


def _values_text(values: Sequence[Scalar]) -> str:
    """Write the accepted values: one, ``absent`` for null, or ``one of`` several."""
    words = ["absent" if value is None else str(value) for value in values]
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int)


def _check_exact(field: str, value: Scalar, reading: str) -> None:
    if reading == "version" and isinstance(value, str):
        version_key(value)
    if reading == "glob" and isinstance(value, str) and is_glob(value):
        raise ValueError(f"when.{field}: {value!r}: a list has no globs; write a rule for each")
    if field.startswith("env.") and not (value is None or isinstance(value, str)):
        raise ValueError(f"when.{field}: an environment value is text; write it in quotes")


def _reader(versioned: bool) -> Callable[[Any], Any]:
    return version_key if versioned else int


def _interval(field: str, text: str, read: Callable[[Any], Any]) -> Interval:
    if len(text) > MAX_GLOB:
        raise ValueError(f"when.{field}: a range has at most {MAX_GLOB} characters, found {len(text):,}")
    interval: Interval | None = Interval()
    for part in text.split(","):
        match = _RANGE.match(part)
        if not match:
            raise ValueError(f"when.{field}: {part.strip()!r} is not a bound; valid: >=, >, <=, < and a value")
        sign, bound = match.group(1), _bound(field, match.group(2), read)
        closed = sign.endswith("=")
        one = Interval(low=bound, low_closed=closed) if sign[0] == ">" else Interval(high=bound, high_closed=closed)
        interval = interval.intersect(one) if interval else None
    if interval is None:
        raise ValueError(f"when.{field}: nothing lies in {text!r}")
    return interval


def _bound(field: str, text: str, read: Callable[[Any], Any]) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(
            f"when.{field}: {error if read is version_key else f'{text!r} is not a whole number'}"
        ) from None

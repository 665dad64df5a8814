"""Query parameters of the fleet list: filters, order, groups, page."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Annotated, Final, get_args

from pydantic import BeforeValidator, Field

from preshuffle.api.fleet import STATES, State
from preshuffle.api.store import FleetFilter, FleetOrder, Grouping, Order, Place
from preshuffle.api.web import Params, invalid_input
from preshuffle.registry.base.errors import FieldProblem, PreshuffleError
from preshuffle.registry.base.suggestions import near
from preshuffle.registry.loading import Book
from preshuffle.registry.values.finding import FindingCode

ORDERS: Final[tuple[str, ...]] = get_args(Order)
GROUPINGS: Final[tuple[str, ...]] = get_args(Grouping)
CODES: Final[tuple[str, ...]] = get_args(FindingCode)
_NUMBERS: Final = frozenset({"state", "since", "seen"})
"""Orders by a number."""
_PATTERN: Final = re.compile(r"[*?\[]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
"""Half of a character, which JSON's escapes can write and UTF-8 cannot."""
_ANY_OF: Final = "any of these, commas between; a trailing * stands for the rest of a name"
_Values = Annotated[str, Field(max_length=1024)]
_Label = Annotated[str, Field(max_length=256)]
_Switch = Annotated[bool | None, BeforeValidator(lambda value: None if value == "" else value)]
"""Filter of a form, in which an empty choice filters nothing."""


class FleetParams(Params):
    """Page of the list, filters on it, and its order."""

    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: Annotated[str | None, Field(max_length=1024, description="next of the page before")] = None
    state: Annotated[
        str | None,
        Field(max_length=256, description=f"only in these states, commas between: {', '.join(STATES)}"),
    ] = None
    name: Annotated[str, Field(max_length=128, description="only those whose name has this in it")] = ""
    node: Annotated[_Values, Field(description=f"only with a replica on {_ANY_OF}")] = ""
    model: Annotated[_Values, Field(description=f"only with a replica of {_ANY_OF}; aliases count")] = ""
    arch: Annotated[_Values, Field(description=f"only with a replica on {_ANY_OF}; products count, as MI355X")] = ""
    engine: Annotated[_Values, Field(description=f"name, or name@version: {_ANY_OF}")] = ""
    code: Annotated[_Values, Field(description=f"only with a finding of {_ANY_OF}")] = ""
    owner: Annotated[_Values, Field(description="only of these owners, commas between")] = ""
    label: Annotated[
        tuple[_Label, ...], Field(max_length=16, description="key or key=value; repeated, all must hold")
    ] = ()
    silenced: Annotated[_Switch, Field(description="only silenced ones, or only others")] = None
    incomplete: Annotated[
        _Switch, Field(description="only with a replica of whose pipeline stages have not reported, or only others")
    ] = None
    sort: Annotated[
        str,
        Field(
            max_length=128,
            description="state (the worst first, then the one longest in it; the silenced last), "
            f"or one of {', '.join(ORDERS[1:-1])}, label:KEY; with - before it, the other way round",
        ),
    ] = "state"
    group_by: Annotated[
        str, Field(max_length=128, description=f"also count by {', '.join(GROUPINGS[:-1])} or label:KEY")
    ] = ""

    @property
    def states(self) -> tuple[State, ...]:
        """Requested states; none: any.

        Raises:
            ProblemError: one of them does not exist.
        """
        names = _split(self.state or "")
        wrong = [name for name in names if name not in STATES]
        if wrong:
            raise invalid_input([FieldProblem("state", f"{wrong[0]!r} is not a state", tuple(STATES))])
        return tuple(state for state in STATES if state in names)

    def chosen(self, book: Book) -> FleetFilter:
        """Return the filter.

        Args:
            book: knows other names of models and GPUs.

        Raises:
            ProblemError: a state or code does not exist.
        """
        facts = {
            "node": _split(self.node),
            "model": _models(_split(self.model), book),
            "arch": tuple(_gfx(name, book) for name in _split(self.arch)),
            "engine": _engines(_split(self.engine)),
            "code": _codes(_split(self.code)),
        }
        return FleetFilter(
            states=self.states,
            part=self.name,
            facts=tuple((field, values) for field, values in facts.items() if values),
            labels=tuple(_label(text) for text in self.label if text),
            owners=_split(self.owner),
            silenced=self.silenced,
            incomplete=self.incomplete,
        )

    @property
    def order(self) -> FleetOrder:
        """Requested order.

        Raises:
            ProblemError: there is no such order.
        """
        reverse, text = self.sort.startswith("-"), self.sort.removeprefix("-") or "state"
        by, label = _keyed(text)
        if by not in ORDERS or (by == "label") is not bool(label) or not _fits(label):
            valid = (*ORDERS[:-1], "label:KEY")
            raise invalid_input([FieldProblem("sort", f"{text!r} is no order", valid)])
        return FleetOrder(by, label, reverse)  # type: ignore[arg-type]

    @property
    def grouping(self) -> tuple[Grouping, str] | None:
        """What deployments are grouped by, and of which label, or None.

        Raises:
            ProblemError: there are no such groups.
        """
        if not self.group_by:
            return None
        by, label = _keyed(self.group_by)
        if by not in GROUPINGS or (by == "label") is not bool(label) or not _fits(label):
            valid = (*GROUPINGS[:-1], "label:KEY")
            raise invalid_input([FieldProblem("group_by", f"{self.group_by!r} groups nothing", valid)])
        return by, label  # type: ignore[return-value]

    @property
    def place(self) -> Place | None:
        """Where the page begins; None for the first.

        Raises:
            ProblemError: the cursor is none of this service's, or of another order.
        """
        return read_cursor(self.cursor, self.order) if self.cursor else None


def write_cursor(place: Place) -> str:
    """Return the cursor of the page after a place."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def read_cursor(cursor: str, order: FleetOrder) -> Place:
    """Return the place in a cursor.

    Raises:
        ProblemError: it is not a cursor of this service, or of another order.
    """
    kind = int if order.by in _NUMBERS else str
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        value, name = json.loads(text)
        if type(value) is kind and isinstance(name, str) and _fits(value) and _fits(name):
            return value, name
    except (binascii.Error, ValueError, TypeError, RecursionError):
        pass
    raise invalid_input([FieldProblem("cursor", f"{cursor!r} is not a cursor", ("next of the page before",))])


def _fits(value: int | str) -> bool:
    """Return whether every database takes a value."""
    if isinstance(value, int):
        return abs(value) < 1 << 62
    return "\0" not in value and not _SURROGATE.search(value)


def _split(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _keyed(text: str) -> tuple[str, str]:
    by, _, label = text.partition(":")
    return by, label


def _label(text: str) -> tuple[str, str | None]:
    key, equals, value = text.partition("=")
    return key.strip(), value.strip() if equals else None


def _models(names: tuple[str, ...], book: Book) -> tuple[str, ...]:
    """Return models under all names that the book has for them."""
    found: dict[str, None] = {}
    for name in names:
        entry = None if name.endswith("*") else book.model_names.find(name)
        aliases = [alias for alias in entry.aliases if not _PATTERN.search(alias)] if entry else []
        found |= dict.fromkeys((name, *((entry.id, *aliases) if entry else ())))
    return tuple(found)


def _gfx(name: str, book: Book) -> str:
    try:
        return name if name.endswith("*") else book.arch_names.gfx(name)
    except PreshuffleError:
        return name


def _engines(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return engines; one without a version stands for each of its versions."""
    plain = [name for name in names if "@" not in name and not name.endswith("*")]
    return (*names, *(f"{name}@*" for name in plain))


def _codes(names: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [name for name in names if not name.endswith("*") and name not in CODES]
    if wrong:
        raise invalid_input([FieldProblem("code", f"{wrong[0]!r} is not a finding code", near(wrong[0], CODES))])
    return names

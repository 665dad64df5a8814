"""Lint of conditions on deployments: contracts, known-bad entries, pad conventions.

A condition on a value that a fact never has would silently hide its entry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, get_args

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.base.words import Dtype, GateMode, ModelActivation, QuantType, RowOrder
from preshuffle.registry.entries import LAYOUT_FACTS, FactCondition
from preshuffle.registry.lint.unmatchable import unknown_arch
from preshuffle.registry.loading import CONDITIONAL_SECTIONS, Book, Place

_CLOSED: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("weight_dtype", "activation_dtype", "runs_in"), get_args(Dtype)),
    **dict.fromkeys(("gate_up_order", "source_order"), get_args(RowOrder)),
    "quant_type": get_args(QuantType),
    "activation": get_args(ModelActivation),
    "gate_mode": get_args(GateMode),
    "expert_map": ("mask", "index"),
}
_LAYOUTS: Final = frozenset(fact for fact, _ in LAYOUT_FACTS)


def condition_problems(book: Book, *, packaged: bool = False) -> Iterator[Problem]:
    """Yield conditions on values that their facts never have.

    Args:
        book: the entries.
        packaged: look at the packaged entries instead of the overlays'; they are left to the tests, for speed.
    """
    for section in CONDITIONAL_SECTIONS:
        for id, entry in book.entries[section].items():
            place = book.places[section, id]
            sets = (("when", entry.when), *(("unless", conditions) for conditions in entry.unless))
            for part, conditions in sets if place.packaged == packaged else ():
                for name, wanted in conditions.items():
                    yield from _condition(book, place, part, name, wanted)


def _condition(book: Book, place: Place, part: str, name: str, wanted: Any) -> Iterator[Problem]:
    fact = FactCondition.parse(name, wanted)
    values = [value for value in fact.condition.values if isinstance(value, str)]
    if fact.fact == "arch":
        yield from (unknown_arch(book, place, value, part, name) for value in values if value not in book.archs)
    elif fact.fact.startswith("env.") and (switch := fact.fact.removeprefix("env.")) not in book.flags:
        yield place.unknown("unknown switch", switch, book.flags, part, name)
    else:
        valid = book.known_layouts if fact.fact in _LAYOUTS else _CLOSED.get(fact.fact)
        yield from _outside(place, part, name, values, valid)


def _outside(place: Place, part: str, name: str, values: list[str], valid: Collection[str] | None) -> Iterator[Problem]:
    for value in values if valid is not None else ():
        if valid is not None and value not in valid:
            yield place.unknown(f"{name} is never", value, sorted(valid), part, name)

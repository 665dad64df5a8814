"""Lint of kernel families, alone and against the book."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.base.linear_pattern import linear_pattern
from preshuffle.registry.base.suggestions import meant
from preshuffle.registry.base.words import ROLES
from preshuffle.registry.kernels import DispatchCall, Family, RuntimeFacts
from preshuffle.registry.loading import Book, Place

_ROLES: Final = {"1": ("w13_",), "2": ("w2_",), "1-stage": ("w13_", "w2_")}
_IGNORABLE: Final = frozenset({*DispatchCall.model_fields, "swiglu_limit"})


def family_problems(book: Book, family: Family) -> Iterator[Problem]:
    """Yield what is wrong with a kernel family."""
    place = book.places["kernel_families", family.id]
    groups = set(linear_pattern(family.grammar).names)
    if not (family.grammar.startswith("^") and family.grammar.endswith("$")):
        yield place.problem(f"{family.id}: a grammar is of the whole name; write ^…$", "grammar")
    for index, name in enumerate(family.archs):
        if name not in book.archs:
            yield place.problem(f"{family.id}: unknown arch {name!r}", "archs", index, valid=tuple(book.archs))
    for name in sorted(family.encodes.keys() - groups):
        yield place.problem(
            f"{family.id}: its grammar has no group {name!r}", "encodes", name, valid=tuple(sorted(groups))
        )
    for index, name in enumerate(family.ignores):
        if name not in _IGNORABLE:
            yield place.problem(f"{family.id}: a call has no {name!r}", "ignores", index, valid=sorted(_IGNORABLE))
    yield from _variants(book, place, family, groups)


def _variants(book: Book, place: Place, family: Family, groups: set[str]) -> Iterator[Problem]:
    facts = {*RuntimeFacts._fields, *(f"name.{group}" for group in groups)}
    layouts = {*book.known_layouts, *book.entries["packings"]}
    for number, variant in enumerate(family.variants):
        at = ("variants", number)
        for name in sorted(variant.when.keys() - facts):
            text = f"{family.id}: nothing is known as {name!r}{meant(name, sorted(facts))}"
            yield place.problem(text, *at, "when", name, valid=sorted(facts))
        for role, layout in variant.reads.items():
            if role not in ROLES or not role.startswith(_ROLES[family.stage]):
                yield place.problem(f"{family.id}: stage {family.stage} reads no {role!r}", *at, "reads", role)
            if layout not in layouts:
                yield place.unknown(f"{family.id}: unknown layout", layout, sorted(layouts), *at, "reads", role)


def packing_problems(book: Book) -> Iterator[Problem]:
    """Yield packings over layouts that the book has not."""
    for id, packing in book.entries["packings"].items():
        if packing.under is not None and packing.under not in book.known_layouts:
            place = book.places["packings", id]
            yield place.unknown(f"{id}: unknown layout", packing.under, sorted(book.known_layouts), "under")


def same_names(book: Book) -> Iterator[Problem]:
    """Yield families that claim the same kernel names as an earlier one.

    They have grammar, stage, priority and a function in common, so a kernel could belong to either.
    """
    claimed: dict[tuple[str, ...], Family] = {}
    reported: set[tuple[str, str]] = set()
    for second in book.families:
        for func in second.funcs:
            first = claimed.setdefault((second.grammar, second.stage, str(second.priority), func), second)
            if first is not second and (first.id, second.id) not in reported:
                reported.add((first.id, second.id))
                yield _same_names(book, first, second)


def _same_names(book: Book, first: Family, second: Family) -> Problem:
    first, second = book.packaged_first("kernel_families", (first, second))
    return book.places["kernel_families", second.id].problem(
        f"{second.id!r} and {first.id!r} ({book.places['kernel_families', first.id]}) are for the "
        f"same names; give {second.id!r} `priority: 1`, or the id {first.id!r} to replace the other",
        "grammar",
    )


def unknown_families(book: Book) -> Iterator[Problem]:
    """Yield references to kernel families that do not exist."""
    known = book.entries["kernel_families"]
    for section in ("kernel_labels", "kernel_needs", "functions"):
        for id, entry in book.entries[section].items():
            references = entry.families.items() if isinstance(entry.families, dict) else enumerate(entry.families)
            for key, name in references:
                if name not in known:
                    place = book.places[section, id]
                    yield place.unknown("unknown kernel family", name, sorted(known), "families", key)
    for section in ("contracts", "known_bad", "pad_conventions"):
        for id, entry in book.entries[section].items():
            for field in ("family1", "family2"):
                value = entry.when.get(field)
                for name in value if isinstance(value, list | tuple) else [value]:
                    if isinstance(name, str) and not set(name) & set("*?!<>= ") and name and name not in known:
                        place = book.places[section, id]
                        yield place.unknown("unknown kernel family", name, sorted(known), "when", field)

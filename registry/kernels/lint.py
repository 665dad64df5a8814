"""What must hold in the two kernel files of the book besides their shape, each problem with its place."""

import re
from collections.abc import Collection, Iterator
from typing import Any

from pydantic import ValidationError

from preshuffle.registry.errors import Problem
from preshuffle.registry.kernels.book import (
    DISPATCH,
    FAMILIES,
    BehaviourData,
    DispatchBook,
    Family,
    FamilyBook,
    Tier,
    packaged_document,
    validated,
)
from preshuffle.registry.kernels.call import DispatchCall
from preshuffle.registry.kernels.families import RuntimeFacts
from preshuffle.registry.kernels.stages import RULES
from preshuffle.registry.located import Document, Path, field_problems
from preshuffle.registry.versions import InvalidVersionError, version_key
from preshuffle.registry.words import ROLES

_ROLES = {"1": ("w13_",), "2": ("w2_",), "1-stage": ("w13_", "w2_")}
_CALL_FACTS = frozenset({"gfx", "weight_dtype", "quant_type", "activation", "gate_mode", "env"})
_IGNORABLE = frozenset({*DispatchCall.model_fields, "swiglu_limit"})
_LADDERS = ("padding", "block_m_per_1x128", "cktile_block_m")


def kernel_book_problems(layouts: Collection[str]) -> list[Problem]:
    """Return everything that is wrong with ``kernel_families.yaml`` and ``aiter_dispatch.yaml``.

    Args:
        layouts: The layout book's ids and aliases; families may also read the packings that they name themselves.
    """
    families, wrong = packaged_document(FAMILIES)
    dispatch, more = packaged_document(DISPATCH)
    return [*wrong, *more, *family_problems(families, layouts), *dispatch_problems(dispatch)]


def family_problems(document: Document, layouts: Collection[str]) -> Iterator[Problem]:
    """Yield what is wrong with the families."""
    book, wrong = validated(FamilyBook, document)
    yield from wrong
    if book is None:
        return
    known = {*layouts, *book.packings}
    seen: set[str] = set()
    for index, family in enumerate(book.families):
        at: Path = ("families", index)
        if family.id in seen:
            yield document.problem((*at, "id"), f"duplicate family {family.id!r}")
        seen.add(family.id)
        yield from _family(document, at, family, known)


def _family(document: Document, at: Path, family: Family, known: Collection[str]) -> Iterator[Problem]:
    try:
        groups = set(re.compile(family.grammar).groupindex)
    except re.error as error:
        yield document.problem((*at, "grammar"), f"{family.id}: not a regular expression: {error}")
        return
    if family.since and (why := _not_a_version(family.since)) is not None:
        yield document.problem((*at, "since"), f"{family.id}: {family.since!r}: {why}")
    for name in family.encodes.keys() - groups:
        yield document.problem((*at, "encodes", name), f"{family.id}: its grammar has no group {name!r}", tuple(groups))
    for name in set(family.ignores) - _IGNORABLE:
        yield document.problem((*at, "ignores"), f"{family.id}: a call has no {name!r}", tuple(sorted(_IGNORABLE)))
    facts = {*RuntimeFacts._fields, *(f"name.{group}" for group in groups)}
    for number, variant in enumerate(family.variants):
        place: Path = (*at, "variants", number)
        for name in variant.when.keys() - facts:
            text = f"{family.id}: nothing is known as {name!r}"
            yield document.problem((*place, "when", name), text, tuple(sorted(facts)))
        for role, layout in variant.reads.items():
            if role not in ROLES or not role.startswith(_ROLES[family.stage]):
                text = f"{family.id}: stage {family.stage} reads no {role!r}"
                yield document.problem((*place, "reads", role), text)
            if layout not in known:
                text = f"{family.id}: unknown layout {layout!r}"
                yield document.problem((*place, "reads", role), text, tuple(sorted(known)))


def dispatch_problems(document: Document) -> Iterator[Problem]:
    """Yield what is wrong with the version behaviours."""
    book, wrong = validated(DispatchBook, document)
    yield from wrong
    if book is None:
        return
    versions: list[tuple[Path, str]] = [(("newest",), book.newest)]
    versions += [(("env_since", name), text) for name, text in book.env_since.items()]
    versions += [(("timeline", index, "since"), entry.since) for index, entry in enumerate(book.timeline)]
    bad = [(path, text, error) for path, text in versions if (error := _not_a_version(text)) is not None]
    yield from (document.problem(path, f"{text!r}: {error}") for path, text, error in bad)
    if bad:
        return
    merged: dict[str, Any] = {}
    before = None
    for index, entry in enumerate(book.timeline):
        at: Path = ("timeline", index)
        if before is not None and version_key(entry.since) <= version_key(before):
            yield document.problem((*at, "since"), f"{entry.since} comes after {before}; later versions come later")
        before = entry.since
        merged.update(entry.set)
        yield from _behaviour(document, (*at, "set"), merged)
    if before is not None and version_key(book.newest) < version_key(before):
        yield document.problem(("newest",), f"{book.newest} is older than {before} in the timeline")


def _behaviour(document: Document, at: Path, merged: dict[str, Any]) -> Iterator[Problem]:
    try:
        data = BehaviourData.model_validate(merged)
    except ValidationError as error:
        for path, problem in field_problems(error):
            yield document.problem((*at, *path), f"{problem.field}: {problem.message}", problem.valid)
        return
    for name in _LADDERS:
        yield from _ladder(document, (*at, name), getattr(data, name))
    for index, rule in enumerate(data.stage_rules):
        if rule not in RULES:
            text = f"no stage rule is called {rule!r}"
            yield document.problem((*at, "stage_rules", index), text, tuple(RULES))
    if data.stage_rules[-1:] != ("asm",):
        yield document.problem((*at, "stage_rules"), "the last stage rule must be asm, which takes every call")
    yield from _activation_rules(document, at, data)


def _activation_rules(document: Document, at: Path, data: BehaviourData) -> Iterator[Problem]:
    for index, choice in enumerate(data.activation_rules):
        place: Path = (*at, "activation_rules", index)
        for name in choice.when.keys() - _CALL_FACTS:
            yield document.problem((*place, "when", name), f"a call has no {name!r}", tuple(sorted(_CALL_FACTS)))
        if choice.bound is not None and choice.bound not in data.activation_bounds:
            valid = tuple(data.activation_bounds)
            yield document.problem((*place, "bound"), f"no bound is called {choice.bound!r}", valid)
        if (choice.bound is None) != (choice.below is None):
            yield document.problem(place, "bound and below go together")


def _ladder(document: Document, at: Path, tiers: tuple[Tier, ...]) -> Iterator[Problem]:
    steps = [tier.below for tier in tiers]
    if not steps or steps[-1] is not None or None in steps[:-1]:
        yield document.problem(at, "the last tier, and only it, takes all others (it has no below)")
        return
    bounds = [step for step in steps if step is not None]
    if bounds != sorted(set(bounds)):
        yield document.problem(at, "tiers rise from step to step")


def _not_a_version(text: str) -> str | None:
    try:
        version_key(text)
    except InvalidVersionError as error:
        return str(error)
    return None

"""Lint of ``aiter_dispatch.yaml`` beyond its schema."""

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.base.versions import InvalidVersionError, version_key
from preshuffle.registry.kernels import DISPATCH, RULES, BehaviourData, DispatchBook, Tier, validated
from preshuffle.registry.text import Document, Path, field_problems, packaged_document

_CALL_FACTS = frozenset({"gfx", "weight_dtype", "quant_type", "activation", "gate_mode", "env"})
_LADDERS = ("padding", "block_m_per_1x128", "cktile_block_m")


def dispatch_book_problems() -> list[Problem]:
    """Return everything that is wrong with ``aiter_dispatch.yaml``."""
    document, wrong = packaged_document(DISPATCH)
    return [*wrong, *dispatch_problems(document)]


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

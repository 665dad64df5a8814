"""What the page of a deployment, or of an answer, shows, in the order in which it shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal

from markupsafe import Markup

from preshuffle.api.answers import Answers, DeploymentView, GroupView, group_view
from preshuffle.api.fleet import Group, LayoutComparison, known_layouts
from preshuffle.api.pages.formats import url, words
from preshuffle.api.pages.pictures.kernel_picture import kernels_svg
from preshuffle.api.pages.pictures.layout_picture import DrawnTensor, draw
from preshuffle.api.pages.pictures.layout_svg import cell_data, memory_svg, rows_svg, strip_svg
from preshuffle.api.pages.pictures.layout_words import column_places, memory_words, row_places, strip_words
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import LayoutError, PreshuffleError
from preshuffle.registry.base.words import Role
from preshuffle.registry.entries import LayoutEntry
from preshuffle.registry.loading import Book
from preshuffle.registry.resolve import RuleTrace
from preshuffle.registry.values.decision import TensorDecision
from preshuffle.registry.values.observation import Observation, TensorObservation
from preshuffle.registry.values.query import Query
from preshuffle.registry.values.report import MEANINGS

UNKNOWN: Final = "unknown"
_ROWS: Final = 32
_K: Final = 256
_EXPLAINED: Final = 12
"""Sections of a page that name the rules that lost; trying them all takes a moment."""
_ORDER: Final = list(MEANINGS)


@dataclass(frozen=True, slots=True)
class Art:
    """A picture, ready for the page, and what it says in words."""

    strip_words: str
    memory_words: str
    row_places: tuple[tuple[str, str], ...]
    column_places: tuple[tuple[str, str], ...]
    strip: Markup
    rows: Markup
    memory: Markup
    data: dict[str, str]


@dataclass(frozen=True, slots=True)
class Drawing:
    """One layout of one or more tensors, drawn; or a word on why it is not."""

    ident: str
    roles: tuple[str, ...]
    layout: str
    applied: bool
    title: str
    art: Art | None = None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One tensor in the table: decided, observed, compared."""

    role: str
    comparison: LayoutComparison
    decided: TensorDecision | None
    observed: TensorObservation | None
    drawing: str | None


@dataclass(frozen=True, slots=True)
class Trace:
    """What became of every rule.

    Attributes:
        tried: rules that match, the one that was chosen first.
        others: rules that do not match, the nearest first.
    """

    tried: tuple[RuleTrace, ...]
    others: tuple[RuleTrace, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """Layers that some replicas treat alike.

    Attributes:
        trace: what became of the rules; None where that is not told here.
        link: where the query can be asked again.
    """

    ident: str
    replicas: tuple[int, ...]
    group: GroupView
    tensors: tuple[TensorRow, ...]
    call: tuple[tuple[str, str, str], ...]
    environment: tuple[tuple[str, str, str], ...]
    drawings: tuple[Drawing, ...]
    kernels: Markup
    trace: Trace | None
    link: str
    evidence: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A page: what is drawn and explained on it once is not drawn and worked out again."""

    registry: Registry
    drawn: dict[Any, str] = field(default_factory=dict)
    traces: dict[Query, Trace | None] = field(default_factory=dict)

    def trace(self, query: Query) -> Trace | None:
        """Return what became of the rules."""
        if query not in self.traces:
            self.traces[query] = _trace(query, self.registry)
        return self.traces[query]


def sections(view: DeploymentView, registry: Registry) -> tuple[Section, ...]:
    """Return a deployment's sections, the worst first; groups that several replicas report alike are one."""
    alike: dict[str, tuple[GroupView, list[int]]] = {}
    for replica in view.replicas:
        for group in replica.groups:
            alike.setdefault(group.model_dump_json(), (group, []))[1].append(replica.replica)
    sheet = _Sheet(registry)
    ordered = sorted(alike.values(), key=lambda entry: _ORDER.index(entry[0].verdict), reverse=True)
    return tuple(
        _section(f"s{index}", group, tuple(replicas), sheet, explained=index < _EXPLAINED)
        for index, (group, replicas) in enumerate(ordered)
    )


def section_of(query: Query, answers: Answers) -> Section:
    """Return the section of a query that nobody has followed yet."""
    group = group_view("", Group(layers="0", observation=Observation(query=query)), answers)
    return _section("s0", group, (), _Sheet(answers.registry))


def picture_of(entry: LayoutEntry) -> Drawing:
    """Draw a layout on a small tensor of gate and up."""
    layout = entry.layout()
    rows = 2 * layout.row_multiple * max(1, _ROWS // layout.row_multiple)
    k = layout.k_multiple * max(1, _K // layout.k_multiple)
    unit: Literal["group", "byte"] = "group" if layout.unit == "group" else "byte"
    tensor = DrawnTensor(layout, (rows, k), (rows // 2, k), "GGUU", unit, 1)
    try:
        return Drawing("layout", (), entry.id, False, entry.title, art=_art(tensor, "layout"))
    except LayoutError as error:
        return Drawing("layout", (), entry.id, False, entry.title, refusal=str(error))


def _section(ident: str, group: GroupView, replicas: tuple[int, ...], sheet: _Sheet, explained: bool = True) -> Section:
    book, query = sheet.registry.book, group.observation.query
    drawings = _Drawings(ident, book, sheet.drawn)
    decided = group.decision.tensors if group.decision else {}
    observed = group.observation.applied.tensors
    rows = tuple(
        TensorRow(
            role=role,
            comparison=comparison,
            decided=decided.get(role),
            observed=observed.get(role),
            drawing=drawings.add(role, comparison, decided.get(role)),
        )
        for role, comparison in group.layouts.items()
    )
    return Section(
        ident=ident,
        replicas=replicas,
        group=group,
        tensors=rows,
        call=tuple(_call(group)),
        environment=tuple(_environment(group)),
        drawings=drawings.finished(),
        kernels=Markup(kernels_svg(group.decision.kernels, ident) if group.decision else ""),
        trace=sheet.trace(query) if explained else None,
        link=_link(query),
        evidence=tuple(_evidence(group, book)),
    )


class _Drawings:
    """The pictures of a section. What has been drawn on the page before is not drawn again, only pointed at."""

    def __init__(self, section: str, book: Book, drawn: dict[Any, str]) -> None:
        self._section = section
        self._book = book
        self._drawn = drawn
        self._new: dict[str, tuple[DrawnTensor, list[str], bool]] = {}

    def add(self, role: Role, comparison: LayoutComparison, decided: TensorDecision | None) -> str | None:
        """Draw a tensor as decided, and as applied where these are other bytes; return where it is drawn."""
        if decided is None:
            return None
        if comparison.same_bytes is False and comparison.applied in known_layouts(self._book):
            self._draw(role, comparison.applied, decided, applied=True)
        return self._draw(role, decided.layout, decided, applied=False)

    def finished(self) -> tuple[Drawing, ...]:
        """Return the pictures that are new on the page."""
        return tuple(self._finish(ident, *what) for ident, what in self._new.items())

    def _draw(self, role: Role, layout: str, decided: TensorDecision, applied: bool) -> str | None:
        tensor = DrawnTensor.of(role, self._book.layout(layout), decided)
        if tensor is None:
            return None
        key = (tensor, applied)
        ident = self._drawn.get(key)
        if ident is None:
            ident = self._drawn[key] = f"{self._section}-{role}{'-applied' if applied else ''}"
            self._new[ident] = (tensor, [], applied)
        if ident in self._new:
            self._new[ident][1].append(role)
        return ident

    def _finish(self, ident: str, tensor: DrawnTensor, roles: list[str], applied: bool) -> Drawing:
        name = tensor.layout.id
        title = self._book.layouts[name].title
        try:
            return Drawing(ident, tuple(roles), name, applied, title, art=_art(tensor, ident))
        except LayoutError as error:
            return Drawing(ident, tuple(roles), name, applied, title, refusal=str(error))


@lru_cache(maxsize=128)
def _art(tensor: DrawnTensor, ident: str) -> Art:
    """Draw a tensor; the same tensors are drawn on most pages."""
    picture = draw(tensor)
    return Art(
        strip_words=strip_words(picture),
        memory_words=memory_words(picture),
        row_places=row_places(picture),
        column_places=column_places(picture),
        strip=Markup(strip_svg(picture, ident)),
        rows=Markup(rows_svg(picture, ident)),
        memory=Markup(memory_svg(picture, ident)),
        data=cell_data(picture),
    )


def _call(group: GroupView) -> Iterator[tuple[str, str, str]]:
    """Each argument of the call: its name, as decided, as passed."""
    if group.decision is None:
        return
    applied = group.observation.applied
    passed = {
        "gate_mode": applied.gate_mode,
        "hidden_pad": applied.hidden_pad,
        "intermediate_pad": applied.intermediate_pad,
        "bias": applied.bias_passed,
        "swiglu_limit": applied.swiglu_limit,
    }
    for name, value in group.decision.call.model_dump().items():
        yield name, words(value, "none"), words(passed.get(name), UNKNOWN)


def _environment(group: GroupView) -> Iterator[tuple[str, str, str]]:
    """Each switch: its name, what the recipe needs, what the query says."""
    needed = group.decision.env if group.decision else {}
    given = group.observation.query.env
    for name in sorted({*needed, *given}):
        yield name, needed.get(name, "—"), given.get(name, UNKNOWN)


def _evidence(group: GroupView, book: Book) -> Iterator[tuple[str, tuple[str, ...]]]:
    if group.decision is None:
        return
    yield f"rule {group.decision.rule}", book.rules[group.decision.rule].evidence
    yield f"recipe {group.decision.recipe}", book.recipes[group.decision.recipe].evidence
    for layout in dict.fromkeys(book.layout(tensor.layout).id for tensor in group.decision.tensors.values()):
        yield f"layout {layout}", book.layouts[layout].evidence


def _trace(query: Query, registry: Registry) -> Trace | None:
    """Return what became of the rules; None where the query cannot be asked at all."""
    try:
        rules = registry.explain(query).rules
    except PreshuffleError:
        return None
    tried = tuple(rule for rule in rules if rule.outcome != "does not match")
    others = sorted((rule for rule in rules if rule.outcome == "does not match"), key=_misses)
    return Trace(tried, tuple(others))


def _link(query: Query) -> str:
    """Return where the query can be asked again."""
    asked = query.model_dump(mode="json", exclude_unset=True)
    switches = [f"{name}={value}" for name, value in asked.pop("env", {}).items()]
    asked["engine"] = str(query.engine) if query.engine else None
    asked["tokens"] = ",".join(map(str, query.tokens)) if "tokens" in asked else None
    return url("/resolve", **asked, env=switches)


def _misses(rule: RuleTrace) -> int:
    """How many conditions did not hold."""
    return rule.why.count("; ") + 1

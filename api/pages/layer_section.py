"""Contents of a page of a deployment or a decision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from markupsafe import Markup

from preshuffle.api.answers import Answers, DeploymentView, GroupView, group_view
from preshuffle.api.fleet import Group, LayoutComparison, known_layouts
from preshuffle.api.pages.formats import url, words
from preshuffle.api.pages.kernel_charts import KernelChart, backend_lines, kernel_charts, why_no_kernels
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
from preshuffle.registry.values.report import rank

UNKNOWN: Final = "unknown"
_ROWS: Final = 32
_K: Final = 256
_EXPLAINED: Final = 12
"""Number of sections that show the trace of the rules; each trace takes a moment."""


@dataclass(frozen=True, slots=True)
class PictureMarkup:
    """A picture as markup, with its words."""

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
    """One layout of one or more tensors, drawn or refused."""

    ident: str
    roles: tuple[str, ...]
    layout: str
    applied: bool
    title: str
    art: PictureMarkup | None = None
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
    """Outcome of every rule.

    Attributes:
        matching: rules that match, the one that was chosen first.
        others: rules that do not match, the nearest first.
    """

    matching: tuple[RuleTrace, ...]
    others: tuple[RuleTrace, ...]


@dataclass(frozen=True, slots=True)
class LayerSection:
    """Layers that some replicas report equally.

    Attributes:
        charts: kernels of the reported call, and of the decided one where they are others.
        trace: outcome of the rules; None where it is left out.
        link: the page that resolves the query.
        why_no_kernels: why none are predicted; empty where they are.
        backend_lines: how it is known what a backend's own kernels read.
    """

    ident: str
    replicas: tuple[int, ...]
    group: GroupView
    tensors: tuple[TensorRow, ...]
    call: tuple[tuple[str, str, str], ...]
    environment: tuple[tuple[str, str, str], ...]
    drawings: tuple[Drawing, ...]
    charts: tuple[KernelChart, ...]
    trace: Trace | None
    link: str
    evidence: tuple[tuple[str, tuple[str, ...]], ...]
    why_no_kernels: str = ""
    backend_lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _PageMemo:
    """Memo of one page: drawings and traces that are shown once."""

    registry: Registry
    drawn: dict[Any, str] = field(default_factory=dict)
    traces: dict[Query, Trace | None] = field(default_factory=dict)

    def trace(self, query: Query) -> Trace | None:
        """Trace the rules for a query."""
        if query not in self.traces:
            self.traces[query] = _trace(query, self.registry)
        return self.traces[query]


def sections(view: DeploymentView, registry: Registry) -> tuple[LayerSection, ...]:
    """Return a deployment's sections, the worst first.

    Groups that several replicas report equally are one section.
    """
    equal_groups: dict[str, tuple[GroupView, list[int]]] = {}
    for replica in view.replicas:
        for group in replica.groups:
            equal_groups.setdefault(group.model_dump_json(), (group, []))[1].append(replica.replica)
    memo = _PageMemo(registry)
    ordered = sorted(equal_groups.values(), key=lambda entry: rank(entry[0].verdict), reverse=True)
    return tuple(
        _section(f"s{index}", group, tuple(replicas), memo, explained=index < _EXPLAINED)
        for index, (group, replicas) in enumerate(ordered)
    )


def section_of(query: Query, answers: Answers) -> LayerSection:
    """Return the section of a query without an observation."""
    group = group_view("", Group(layers="0", observation=Observation(query=query)), answers)
    return _section("s0", group, (), _PageMemo(answers.registry))


def picture_of(entry: LayoutEntry) -> Drawing:
    """Draw a layout on a small tensor of gate and up."""
    layout = entry.layout()
    rows = 2 * layout.row_multiple * max(1, _ROWS // layout.row_multiple)
    k = layout.k_multiple * max(1, _K // layout.k_multiple)
    unit: Literal["group", "byte"] = "group" if layout.unit == "group" else "byte"
    tensor = DrawnTensor(layout, (rows, k), (rows // 2, k), "GGUU", unit, 1)
    try:
        return Drawing("layout", (), entry.id, False, entry.title, art=_markup_of(tensor, "layout"))
    except LayoutError as error:
        return Drawing("layout", (), entry.id, False, entry.title, refusal=str(error))


def _section(
    ident: str, group: GroupView, replicas: tuple[int, ...], memo: _PageMemo, explained: bool = True
) -> LayerSection:
    book, query = memo.registry.book, group.observation.query
    drawings = _Drawings(ident, book, memo.drawn)
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
    return LayerSection(
        ident=ident,
        replicas=replicas,
        group=group,
        tensors=rows,
        call=tuple(_call(group)),
        environment=tuple(_environment(group)),
        drawings=drawings.new_drawings(),
        charts=tuple(kernel_charts(group, memo.registry, ident)),
        trace=memo.trace(query) if explained else None,
        link=_link(query),
        evidence=tuple(_evidence(group, book)),
        why_no_kernels=why_no_kernels(group, memo.registry),
        backend_lines=backend_lines(group, memo.registry),
    )


class _Drawings:
    """Pictures of a section; those drawn before are only linked."""

    def __init__(self, section: str, book: Book, drawn: dict[Any, str]) -> None:
        self._section = section
        self._book = book
        self._drawn = drawn
        self._new: dict[str, tuple[DrawnTensor, list[str], bool]] = {}

    def add(self, role: Role, comparison: LayoutComparison, decided: TensorDecision | None) -> str | None:
        """Draw a tensor as decided; return the drawing's id.

        It is drawn as applied, too, where these are other bytes.
        """
        if decided is None:
            return None
        if comparison.same_bytes is False and comparison.applied in known_layouts(self._book):
            self._draw(role, comparison.applied, decided, applied=True)
        return self._draw(role, decided.layout, decided, applied=False)

    def new_drawings(self) -> tuple[Drawing, ...]:
        """Return the pictures that the page does not have yet."""
        return tuple(self._finish(ident, *drawn) for ident, drawn in self._new.items())

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
            return Drawing(ident, tuple(roles), name, applied, title, art=_markup_of(tensor, ident))
        except LayoutError as error:
            return Drawing(ident, tuple(roles), name, applied, title, refusal=str(error))


def _markup_of(tensor: DrawnTensor, ident: str) -> PictureMarkup:
    """Draw a tensor."""
    picture = draw(tensor)
    return PictureMarkup(
        strip_words=strip_words(picture),
        memory_words=memory_words(picture),
        row_places=row_places(picture),
        column_places=column_places(picture),
        strip=Markup(strip_svg(picture, ident)),
        rows=Markup(rows_svg(picture, ident)),
        memory=Markup(memory_svg(picture, ident)),
        data=cell_data(picture),
    )


_REPORTED_ONLY = ("router_weight", "mask_ones", "mask_size", "local_experts", "dummy_slots")
"""What a report may say of the call's experts and no decision says."""


def _call(group: GroupView) -> Iterator[tuple[str, str, str]]:
    """Yield each call argument: name, decided, passed."""
    if group.decision is None:
        return
    applied = group.observation.applied
    passed = {
        "gate_mode": applied.gate_mode,
        "hidden_pad": applied.hidden_pad,
        "intermediate_pad": applied.intermediate_pad,
        "bias": applied.bias_passed,
        "swiglu_limit": applied.swiglu_limit,
        "function": applied.function,
        "doweight_stage1": applied.doweight_stage1,
        "expert_map": applied.expert_map,
    }
    for name, value in group.decision.call.model_dump().items():
        yield name, words(value, "none"), words(passed.get(name), UNKNOWN)
    for name in _REPORTED_ONLY:
        value = getattr(applied, name)
        if value not in (None, ()):
            shown = ", ".join(map(str, value)) if isinstance(value, tuple) else words(value, UNKNOWN)
            yield name, "—", shown


def _environment(group: GroupView) -> Iterator[tuple[str, str, str]]:
    """Yield each switch: name, needed, given in the query."""
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
    """Trace the rules for a query; None where it is invalid."""
    try:
        rules = registry.explain(query).rules
    except PreshuffleError:
        return None
    matching = tuple(rule for rule in rules if rule.outcome != "does not match")
    others = sorted((rule for rule in rules if rule.outcome == "does not match"), key=_misses)
    return Trace(matching, tuple(others))


def _link(query: Query) -> str:
    """Return the link to the page that resolves the query."""
    fields = query.model_dump(mode="json", exclude_unset=True)
    switches = [f"{name}={value}" for name, value in fields.pop("env", {}).items()]
    fields["engine"] = str(query.engine) if query.engine else None
    fields["tokens"] = ",".join(map(str, query.tokens)) if "tokens" in fields else None
    return url("/resolve", **fields, env=switches)


def _misses(rule: RuleTrace) -> int:
    """Count the conditions that did not hold."""
    return rule.why.count("; ") + 1

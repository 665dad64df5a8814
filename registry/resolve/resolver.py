"""Resolver: decides a query's rule, tensors and call, and memoises decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from preshuffle.registry.base.frozen import FrozenDict, unvalidated
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.base.words import Role, Shard
from preshuffle.registry.entries import Recipe
from preshuffle.registry.layer import AITER, MoELayer, Predictor, layer_of, supposed_layers, value_of
from preshuffle.registry.loading import Book, backend_reads
from preshuffle.registry.resolve.choose import Choice, chosen, engine_notes_under
from preshuffle.registry.resolve.kernels import predict_kernels
from preshuffle.registry.resolve.observation_of import applied_by, query_of_kernel
from preshuffle.registry.resolve.reason import reason
from preshuffle.registry.resolve.reason_kind import reason_kind
from preshuffle.registry.resolve.refusals import no_recipe, nothing_works
from preshuffle.registry.resolve.shapes import call_decision, tensor_decisions
from preshuffle.registry.values.decision import (
    Alternative,
    CallDecision,
    Decision,
    KernelBucket,
    ObservedRead,
    TensorDecision,
)
from preshuffle.registry.values.digest import decision_digest
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.observation import Applied
from preshuffle.registry.values.query import Query

_STATED = ("tokens", "dp")
"""Fields for which it matters whether a query states them, whatever their value."""


_Chosen = tuple[Choice, tuple[Alternative, ...]]


class Judge(Protocol):
    """Says what is wrong with a layer: the rules of ``check``.

    Attributes:
        reads_deployment: whether any entry is for deployments of a name.
    """

    reads_deployment: bool

    def findings_of(self, layers: Iterator[MoELayer], *, kernels: bool) -> tuple[Finding, ...]:
        """Return the findings of a layer under its possible AITER versions.

        Without kernels only those that need none.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LaidOut:
    """A recipe on one layer's sizes, shared between equal queries.

    Attributes:
        applied: what a loader and an engine do that follow it.
    """

    tensors: FrozenDict[Role, TensorDecision]
    call: CallDecision
    applied: Applied
    digest: str


@dataclass(frozen=True, slots=True, eq=False)
class LayoutDecision:
    """Bytes and call of a decision, without kernels and findings.

    Attributes:
        recipe: id of the recipe.
        decision_digest: that of the whole decision.
    """

    recipe: str
    tensors: FrozenDict[Role, TensorDecision]
    call: CallDecision
    decision_digest: str


class Resolver:
    """Decides queries from one book."""

    def __init__(self, book: Book, predictor: Predictor, judge: Callable[[], Judge], memo: Memo) -> None:
        """Use a book.

        Args:
            book: whose rules decide.
            predictor: of kernels.
            judge: returns what judges a complete decision.
            memo: stores decisions and their parts.
        """
        self._book = book
        self._predictor = predictor
        self._judge = judge
        self._memo = memo

    def resolve(self, query: Query, *, kernels: bool, nearest: bool = True) -> Decision:
        """Decide, or return what was decided for an equal query.

        Args:
            kernels: also predict the kernels, and say what is wrong with them.
            nearest: also find the nearest rules, where one says that nothing works.

        Raises:
            NoRecipeError: no rule answers, or one says that nothing works; the nearest are named.
            QueryError: the query contradicts itself.
        """
        stated = query.model_fields_set
        key = (query, kernels, *(name in stated for name in _STATED))
        return self._memo.get("decisions", key, lambda: self._decide(query, kernels, nearest))

    def resolve_layout(self, query: Query) -> LayoutDecision:
        """Decide bytes and call alone; nobody judges them.

        Raises:
            NoRecipeError: no rule answers, or one says that nothing works; the nearest are named.
            QueryError: the query contradicts itself.
        """
        _, _, recipe, laid = self._chosen(query, nearest=True)
        return LayoutDecision(recipe.id, laid.tensors, laid.call, laid.digest)

    def _chosen(self, query: Query, *, nearest: bool) -> tuple[MoELayer, _Chosen, Recipe, LaidOut]:
        layer = layer_of(query, self._book, self._memo).checked()
        choice, others = chosen(layer)
        if choice is None:
            raise no_recipe(layer)
        rule, recipe = choice.winner.rule, choice.winner.recipe
        if recipe is None:
            raise nothing_works(layer, rule, nearest=nearest)
        return layer, (choice, others), recipe, self._laid_out(layer, recipe, rule.shard)

    def _decide(self, query: Query, kernels: bool, nearest: bool) -> Decision:
        book = self._book
        layer, (choice, others), recipe, laid = self._chosen(query, nearest=nearest)
        rule = choice.winner.rule
        buckets, findings = self._judged(query, laid, recipe, kernels)
        unread = _unread_switches(layer)
        values = {
            "recipe": recipe.id,
            "rule": rule.id,
            "reason": reason(layer, choice.winner, engine_notes_under(book, query.engine, rule)),
            "reason_kind": reason_kind(book, choice.winner, layer.switches.honoured),
            "tensors": laid.tensors,
            "call": laid.call,
            "env": FrozenDict(recipe.env),
            "kernels": buckets,
            "reads": self._backend_reads(layer, laid) if kernels else (),
            "alternatives": others,
            "findings": (
                *unread,
                *_switch_conflicts(query, book, recipe, findings),
                *_others(findings, unread),
            ),
            "registry_digest": book.digest,
            "decision_digest": laid.digest,
        }
        return unvalidated(Decision, values)

    def _laid_out(self, layer: MoELayer, recipe: Recipe, shard: Shard | None) -> LaidOut:
        full, model = layer.query, layer.model.id if layer.model else None
        key = (
            recipe.id,
            shard,
            layer.sizes,
            layer.known_arch.id,
            full.swiglu_limit,
            full.router_weight_on_input,
            model,
        )
        return self._memo.get("laid out", key, lambda: self._lay_out(layer, recipe, shard))

    def _lay_out(self, layer: MoELayer, recipe: Recipe, shard: Shard | None) -> LaidOut:
        tensors = FrozenDict(
            self._with_lines(tensor_decisions(recipe, layer.sizes, layer.known_arch, self._book, shard))
        )
        call = call_decision(recipe, layer, tensors)
        return LaidOut(tensors, call, applied_by(tensors, call), decision_digest(recipe.id, tensors, call, recipe.env))

    def _judged(
        self, query: Query, laid: LaidOut, recipe: Recipe, kernels: bool
    ) -> tuple[tuple[KernelBucket, ...], tuple[Finding, ...]]:
        """Return the kernels of a decision, and what ``check`` finds where it is followed.

        Deployments of other names share the answer, unless the book's entries tell them apart.
        """
        judge = self._judge()
        if query.deployment is not None and not judge.reads_deployment:
            query = query.altered(deployment=None)

        def judged() -> tuple[tuple[KernelBucket, ...], tuple[Finding, ...]]:
            follows = query_of_kernel(query, laid.applied, laid.call, recipe.env)
            layers = supposed_layers(follows, self._book, self._memo, laid.applied)
            first = next(layers)
            findings = judge.findings_of(chain((first,), layers), kernels=kernels)
            if not kernels:
                return (), findings
            if first.supposed and not first.supposes_newest:  # kernels are told of what is stated
                first = layer_of(follows, self._book, self._memo, laid.applied)
            return _without_tuning(predict_kernels(first, laid.call, self._predictor), findings), findings

        key = (query, laid, kernels, *(name in query.model_fields_set for name in _STATED))
        return self._memo.get("judged", key, judged)

    def _backend_reads(self, layer: MoELayer, laid: LaidOut) -> tuple[ObservedRead, ...]:
        layouts: dict[str, str] = {role: tensor.layout for role, tensor in laid.tensors.items()}
        facts = (layer.known_arch.id, layer.query.weight_dtype, layer.query.activation)
        return backend_reads(self._book, laid.call.backend, layouts, facts)

    def _with_lines(self, tensors: dict[Role, TensorDecision]) -> dict[Role, TensorDecision]:
        """Add the layout's line where its name does not suffice.

        Loaders know the packaged book's layouts only.
        """
        lines = self._book.own_lines
        return {
            role: tensor.model_copy(update={"layout_line": lines[tensor.layout]}) if tensor.layout in lines else tensor
            for role, tensor in tensors.items()
        }


def _without_tuning(buckets: tuple[KernelBucket, ...], findings: Iterable[Finding]) -> tuple[KernelBucket, ...]:
    """Leave open whether buckets are tuned where no kernel runs."""
    codes = {finding.code for finding in findings}
    if "unsupported" not in codes or "untuned" in codes:
        return buckets
    return tuple(bucket.altered(tuned=None) if bucket.tuned is False else bucket for bucket in buckets)


def _unread_switches(layer: MoELayer) -> tuple[Finding, ...]:
    """Return switches that nobody reads; what rests on an assumed version is in the reason."""
    return tuple(finding for finding in layer.switches.findings if finding not in layer.switches.assumed)


def _others(findings: Iterable[Finding], unread: Iterable[Finding]) -> Iterator[Finding]:
    """Yield what was judged but for switches that were found before."""
    known = {_switch(finding) for finding in unread}
    return (finding for finding in findings if finding.code != "flag_unknown" or _switch(finding) not in known)


def _switch(finding: Finding) -> str:
    """Return the switch that a finding is about: its message begins with ``NAME=value``."""
    return finding.message.partition("=")[0]


def _switch_conflicts(query: Query, book: Book, recipe: Recipe, found: Iterable[Finding]) -> list[Finding]:
    """Return findings on switches that contradict the recipe's, unless some were found.

    AITER's own switches, and those that affect numerics only, are judged by the kernels.
    """
    if any(finding.code == "flag_conflict" for finding in found):
        return []
    return [
        Finding.of(
            "flag_conflict",
            f"recipe {recipe.id} needs {name}={value}; the environment says {name}={query.env[name]}",
            expected=value,
            actual=query.env[name],
            fix=f"set {name}={value}",
            evidence=book.flags[name].evidence,
        )
        for name, value in recipe.env.items()
        if value_of(book.flags[name], query.env.get(name, value)) != value
        and book.flags[name].owner != AITER
        and set(book.flags[name].affects) != {"numerics"}
    ]

"""Resolver: decides a query's rule, tensors, call and kernels, and memoises decisions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from preshuffle.registry.base.errors import NoRecipeError, QueryError
from preshuffle.registry.base.frozen import FrozenDict, unvalidated
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.base.words import Role
from preshuffle.registry.entries import TABLE, Recipe
from preshuffle.registry.kernels import KernelTables, TokenBucket
from preshuffle.registry.layer import engine_notes, read_after, unknown_engine
from preshuffle.registry.loading import Book, Prepared
from preshuffle.registry.resolve.case import Case, open_case, reason
from preshuffle.registry.resolve.choose import Choice, choose_with_alternatives
from preshuffle.registry.resolve.findings import environment_findings, kernel_findings, layer_findings
from preshuffle.registry.resolve.kernels import predict_kernels
from preshuffle.registry.resolve.known_problems import KnownProblems
from preshuffle.registry.resolve.match import try_rules
from preshuffle.registry.resolve.reason_kind import reason_kind
from preshuffle.registry.resolve.refusals import no_recipe, nothing_works
from preshuffle.registry.resolve.requirements import REQUIRED_OF
from preshuffle.registry.resolve.shapes import tensor_decisions
from preshuffle.registry.values.decision import Alternative, CallDecision, Decision, KernelBucket, TensorDecision
from preshuffle.registry.values.digest import decision_digest
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.query import Query

Predicted = tuple[tuple[KernelBucket, ...], tuple[Finding, ...], list[TokenBucket]]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A recipe on one layer's sizes, shared between equal queries."""

    tensors: FrozenDict[Role, TensorDecision]
    call: CallDecision
    findings: tuple[Finding, ...]
    digest: str


class Resolver:
    """Decides queries from one book and, where there are any, kernel tables."""

    def __init__(self, book: Book, tables: KernelTables | None, memo: Memo) -> None:
        """Index the book's known problems; ``memo`` stores decisions and their parts."""
        self._book = book
        self._tables = tables
        self._memo = memo
        self._decisive = tuple({*book.rule_index.fields, *REQUIRED_OF})
        self._known_problems = KnownProblems(book)

    def resolve(self, query: Query, *, kernels: bool) -> Decision:
        """Decide, or return what was decided for an equal query.

        Args:
            kernels: also predict the kernels, and say what is wrong with them.

        Raises:
            NoRecipeError: no rule answers, or one says that nothing works; the nearest are named.
            QueryError: the query contradicts itself.
        """
        return self._memo.get("decisions", (query, kernels), lambda: self._decide(query, kernels))

    def engine_notes(self, query: Query) -> tuple[str, ...]:
        """Return what any answer must say of the query's engine."""
        engine = query.engine
        if engine is None:
            return ()
        if unknown := unknown_engine(self._book, engine):
            return (unknown,)
        later = self._memo.get("read after", engine, lambda: read_after(self._book, engine))
        return engine_notes(self._book, engine, self._since(query) if later else None)

    def _since(self, query: Query) -> str | None:
        """Return the release in which a query's rule was read, or None."""
        try:
            choice, _ = self._choice(open_case(query, self._book, self._memo))
        except (NoRecipeError, QueryError):
            return None
        return choice.winner.rule.since if choice else None

    def _decide(self, query: Query, kernels: bool) -> Decision:
        book = self._book
        case = open_case(query, book, self._memo)
        choice, others = self._choice(case)
        if choice is None:
            raise no_recipe(case, try_rules(book, case.facts), book)
        rule, recipe = choice.winner.rule, choice.winner.recipe
        if recipe is None:
            raise nothing_works(case, rule, try_rules(book, case.facts), book)
        layer = self._layer(case, recipe)
        buckets, findings, ranges = self._kernels(case, recipe, layer) if kernels else ((), (), [])
        known_problems: Iterable[Finding] = ()
        if kernels:
            known_problems = self._known_problems.findings(case, recipe.env, layer.tensors, layer.call, ranges)
        values = {
            "recipe": recipe.id,
            "rule": rule.id,
            "reason": reason(case, choice.winner, _engine_notes(book, query, choice.winner)),
            "reason_kind": reason_kind(book, choice.winner, case.switches.honoured),
            "tensors": layer.tensors,
            "call": layer.call,
            "env": FrozenDict(recipe.env),
            "kernels": buckets,
            "alternatives": others,
            "findings": (
                *case.switches.findings,
                *case.slots.findings,
                *layer.findings,
                *environment_findings(query, book, recipe),
                *findings,
                *known_problems,
            ),
            "registry_digest": book.digest,
            "decision_digest": layer.digest,
        }
        return unvalidated(Decision, values)

    def _choice(self, case: Case) -> tuple[Choice | None, tuple[Alternative, ...]]:
        """Choose the rule; memoised by the facts that decide."""
        key = tuple(map(case.facts.get, self._decisive))
        return self._memo.get("choices", key, lambda: choose_with_alternatives(self._book, case.facts))

    def _kernels(self, case: Case, recipe: Recipe, layer: Layer) -> Predicted:
        """Predict the kernels of a layer's call, with their findings."""
        full = case.full
        key = (
            layer,
            full.cu_num,
            full.ep,
            full.aiter,
            full.env,
            full.tokens,
            full.activation_dtype,
            case.masked_column,
            case.slots.table,
        )
        return self._memo.get("kernels", key, lambda: self._predict(case, recipe, layer))

    def _predict(self, case: Case, recipe: Recipe, layer: Layer) -> Predicted:
        if case.slots.table != TABLE:  # its rows are not known
            return (), (), []
        call = (case.full, case.arch, layer.tensors, layer.call, recipe.env)
        buckets, ranges = predict_kernels(*call, self._tables, self._book.families, case.masked_column)
        findings = tuple(kernel_findings(case.full, self._book, layer.tensors, buckets, ranges))
        return buckets, findings, ranges

    def _layer(self, case: Case, recipe: Recipe) -> Layer:
        full, model = case.full, case.model.id if case.model else None
        key = (recipe.id, case.sizes, case.arch.id, full.swiglu_limit, full.router_weight_on_input, model)
        return self._memo.get("layers", key, lambda: self._lay_out(case, recipe))

    def _lay_out(self, case: Case, recipe: Recipe) -> Layer:
        sizes = case.sizes
        tensors = FrozenDict(self._with_lines(tensor_decisions(recipe, sizes, case.arch)))
        call = case.call(recipe, sizes, tensors)
        findings = tuple(layer_findings(case.full, self._book, recipe, tensors, self._memo))
        return Layer(tensors, call, findings, decision_digest(recipe.id, tensors, call, recipe.env))

    def _with_lines(self, tensors: dict[Role, TensorDecision]) -> dict[Role, TensorDecision]:
        """Add the layout's line where its name does not suffice.

        Loaders know the packaged book's layouts only.
        """
        lines = self._book.own_lines
        return {
            role: tensor.model_copy(update={"layout_line": lines[tensor.layout]}) if tensor.layout in lines else tensor
            for role, tensor in tensors.items()
        }


def _engine_notes(book: Book, query: Query, winner: Prepared) -> tuple[str, ...]:
    """Return the notes on a query's engine; its name counts where the rule wants none in particular."""
    unknown = None if "engine" in winner.conditions else unknown_engine(book, query.engine)
    return (unknown,) if unknown else engine_notes(book, query.engine, winner.rule.since)

"""Decides: the rule from the facts, the bytes from the sizes, the kernels from the call; and remembers."""

from __future__ import annotations

from dataclasses import dataclass

from preshuffle.registry.base.frozen import unvalidated
from preshuffle.registry.base.words import Role
from preshuffle.registry.entries import Recipe
from preshuffle.registry.kernels import KernelTables, TokenBucket
from preshuffle.registry.loading import Book
from preshuffle.registry.resolve.case import Case, open_case, reason
from preshuffle.registry.resolve.choose import chosen
from preshuffle.registry.resolve.findings import environment_findings, kernel_findings, layer_findings
from preshuffle.registry.resolve.kernels import predict_kernels
from preshuffle.registry.resolve.known_problems import listed_findings
from preshuffle.registry.resolve.match import try_rules
from preshuffle.registry.resolve.refusals import no_recipe, nothing_works
from preshuffle.registry.resolve.shapes import tensor_decisions
from preshuffle.registry.values.decision import CallDecision, Decision, KernelBucket, TensorDecision
from preshuffle.registry.values.digest import decision_digest
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.query import Query

_REMEMBERED = 1024
Predicted = tuple[tuple[KernelBucket, ...], tuple[Finding, ...], list[TokenBucket]]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A recipe on the sizes of one layer: what every query with these sizes gets. It is shared and never changed."""

    tensors: dict[Role, TensorDecision]
    call: CallDecision
    findings: tuple[Finding, ...]
    digest: str


class Resolver:
    """Decides queries from one book, and remembers the last of them."""

    def __init__(self, book: Book, tables: KernelTables | None) -> None:
        """Start with nothing decided."""
        self._book = book
        self._tables = tables
        self._decided: dict[tuple[Query, bool], Decision] = {}
        self._predicted: dict[tuple[object, ...], Predicted] = {}

    def resolve(self, query: Query, *, kernels: bool) -> Decision:
        """Decide, or return what was decided for an equal query.

        Args:
            kernels: also predict the kernels, and say what is wrong with them.

        Raises:
            NoRecipeError: no rule answers, or one says that nothing works; the nearest are named.
            QueryError: the query contradicts itself.
        """
        key = (query, kernels)
        decision = self._decided.get(key)
        if decision is None:
            if len(self._decided) >= _REMEMBERED:
                self._decided.clear()
            decision = self._decided[key] = self._decide(query, kernels)
        return _own(decision)

    def _decide(self, query: Query, kernels: bool) -> Decision:
        book = self._book
        case = open_case(query, book)
        choice, others = chosen(book, case.facts)
        if choice is None:
            raise no_recipe(case, try_rules(book, case.facts), book)
        rule, recipe = choice.winner.rule, choice.winner.recipe
        if recipe is None:
            raise nothing_works(case, rule, try_rules(book, case.facts))
        layer = self._layer(case, recipe)
        buckets, wrong, ranges = self._kernels(case, recipe, layer) if kernels else ((), (), [])
        facts = (query, case.full, book, recipe.env, layer.tensors, layer.call)
        listed = listed_findings(*facts, ranges) if kernels else ()
        values = {
            "recipe": recipe.id,
            "rule": rule.id,
            "reason": reason(case, choice.winner),
            "tensors": layer.tensors,
            "call": layer.call,
            "env": dict(recipe.env),
            "kernels": buckets,
            "alternatives": others,
            "findings": (
                *case.switches.findings,
                *layer.findings,
                *environment_findings(query, book, recipe),
                *wrong,
                *listed,
            ),
            "registry_digest": book.digest,
            "decision_digest": layer.digest,
        }
        return unvalidated(Decision, values)

    def _kernels(self, case: Case, recipe: Recipe, layer: Layer) -> Predicted:
        """Predict the kernels of a layer's call, and say what is wrong with them."""
        full = case.full
        key = (layer, full.cu_num, full.ep, full.aiter, full.env, full.tokens, full.activation_dtype)
        found = self._predicted.get(key)
        if found is None:
            if len(self._predicted) >= _REMEMBERED:
                self._predicted.clear()
            asked = (full, case.arch, layer.tensors, layer.call, recipe.env)
            buckets, ranges = predict_kernels(*asked, self._tables, self._book.families)
            wrong = tuple(kernel_findings(full, self._book, layer.tensors, buckets, ranges))
            found = self._predicted[key] = (buckets, wrong, ranges)
        return found

    def _layer(self, case: Case, recipe: Recipe) -> Layer:
        key = (recipe.id, case.sizes, case.arch.id, case.full.swiglu_limit, case.model.id if case.model else None)
        return self._book.remember("layers", key, lambda: self._lay_out(case, recipe))

    def _lay_out(self, case: Case, recipe: Recipe) -> Layer:
        sizes = case.sizes
        tensors = self._with_lines(tensor_decisions(recipe, sizes, case.arch))
        call = case.call(recipe, sizes, tensors)
        findings = tuple(layer_findings(case.full, self._book, recipe, tensors))
        return Layer(tensors, call, findings, decision_digest(recipe.id, tensors, call, recipe.env))

    def _with_lines(self, tensors: dict[Role, TensorDecision]) -> dict[Role, TensorDecision]:
        """Say what a layout is where its name alone does not: loaders know the packaged book's."""
        lines = self._book.own_lines
        return {
            role: tensor.model_copy(update={"layout_line": lines[tensor.layout]}) if tensor.layout in lines else tensor
            for role, tensor in tensors.items()
        }


def _own(decision: Decision) -> Decision:
    """Return a decision whose tensors and switches are the caller's own: changing these reaches no other answer."""
    values = decision.__dict__.copy()
    values["tensors"] = values["tensors"].copy()
    values["env"] = values["env"].copy()
    return unvalidated(Decision, values, decision.__pydantic_fields_set__)

"""Checker: complete an observation, try every possible call, run every rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from preshuffle.registry.base.errors import LayoutError, NoRecipeError, QueryError
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.check.deployment.backends import Backends
from preshuffle.registry.check.deployment.evidence import Evidence, matching
from preshuffle.registry.check.deployment.implied import implied_note, implied_runs
from preshuffle.registry.check.deployment.kernel_runs import Predictor, kernel_runs
from preshuffle.registry.check.deployment.observed_layer import ObservedLayer, observe_layer
from preshuffle.registry.check.deployment.possible_calls import PossibleCall, possible_calls
from preshuffle.registry.check.rule_table import RULES, CheckRule
from preshuffle.registry.check.verdict import verdict_of
from preshuffle.registry.kernels import KernelTables
from preshuffle.registry.loading import Book, Compiled, Entries
from preshuffle.registry.resolve import EngineRuns, Resolver, open_case, tensor_decisions
from preshuffle.registry.values.decision import Decision
from preshuffle.registry.values.digest import decision_digest
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.query import Query
from preshuffle.registry.values.report import Report

_ON_THE_CALL = tuple(rule for rule in RULES if rule.on_call)
_ON_OBSERVED = tuple(rule for rule in RULES if not rule.on_call)
_BLOCKING = frozenset({"unsupported", "version_unsupported", "not_known"})


class Checker:
    """Checks deployments against one book and, where there are any, kernel tables.

    Example:
        >>> from preshuffle.registry.loading import load_book
        >>> reported = {"query": {"model": "openai/gpt-oss-120b", "arch": "gfx950", "tp": 1, "aiter": "0.1.14"},
        ...         "applied": {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "gui16"}}}}
        >>> Checker(load_book()).check(Observation.parse(reported)).verdict
        'mismatch'
    """

    def __init__(self, book: Book, tables: KernelTables | None = None, memo: Memo | None = None) -> None:
        """Index the book's entries about deployments; ``memo`` stores decisions and predicted kernels."""
        self.book = book
        self.tables = tables
        self._memo = memo or Memo()
        self._resolver = Resolver(book, tables, self._memo)
        self._backends = Backends(book)
        self._predictor = Predictor(tables, self._memo)
        self._contracts = Entries(book.entries["contracts"].values())
        self._known_bad = Entries(book.entries["known_bad"].values())
        self._conventions = tuple(map(Compiled.of, book.entries["pad_conventions"].values()))

    def check(self, observation: Observation, *, decide: bool = False) -> Report:
        """Compare the bytes, call and kernels of a deployment with each other.

        Args:
            observation: what was done; what it leaves out is unknown, and nothing is concluded from it.
            decide: also say what the registry would do for the query, where it has a recipe.
        """
        layer = observe_layer(observation, self.book, self._memo)
        calls = possible_calls(layer)
        implied = implied_runs(layer)
        first = self._evidence(observation, layer, next(calls, None), implied)
        findings = [finding for rule in _ON_OBSERVED for finding in rule.check(first)]
        findings += self._call_findings(observation, first, calls)
        findings.sort(key=lambda finding: finding.severity != "error")
        return Report(
            verdict=verdict_of(findings, first),
            findings=tuple(findings),
            notes=(
                *self._arch_notes(observation.query),
                *self._resolver.engine_notes(observation.query),
                *implied_note(layer, implied),
            ),
            decision=self._decision(observation) if decide else None,
        )

    def _arch_notes(self, query: Query) -> tuple[str, ...]:
        """Return what a GPU's unknown name must be told."""
        names = self.book.arch_names
        return () if names.find(query.arch) else (names.unknown(query.arch),)

    def _call_findings(
        self, observation: Observation, first: Evidence, others: Iterator[PossibleCall]
    ) -> list[Finding]:
        """Return findings that depend on the call.

        They are those of the most plausible call. Errors count only if every possible call has some; where all calls
        share an error, only shared errors are reported, since the others may be of a call that was not made.
        """
        found = _run(_ON_THE_CALL, first)
        shared = {finding.code for finding in found}
        for call in others if found else ():
            other = _run(_ON_THE_CALL, self._evidence(observation, first.layer, call, first.implied))
            codes = {finding.code for finding in other}
            if not any(finding.severity == "error" for finding in other):
                found = [finding for finding in found if finding.severity == "warning"]
            found = [finding for finding in found if finding.severity == "error" or finding.code in codes]
            shared &= codes
            if not found:
                break
        certain = [finding for finding in found if finding.severity == "error" and finding.code in shared]
        return [finding for finding in found if finding.severity == "warning" or not certain or finding in certain]

    def _evidence(
        self, observation: Observation, layer: ObservedLayer, call: PossibleCall | None, implied: EngineRuns
    ) -> Evidence:
        runs = kernel_runs(layer, call, self._backends, self._predictor, implied)
        broken, bad = self._contracts.may_hold(layer.facts), self._known_bad.may_hold(layer.facts)
        facts = [run.facts(layer, call) for run in runs] if broken or bad else ()
        contracts = matching(broken, layer, runs, facts)
        blocked = {id(run) for entry, hits in contracts for run in hits if entry.blocks and entry.code in _BLOCKING}
        if blocked:
            swap = {id(run): replace(run, blocked=True) for run in runs if id(run) in blocked}
            runs = tuple(swap.get(id(run), run) for run in runs)
            contracts = [(entry, tuple(swap.get(id(run), run) for run in hits)) for entry, hits in contracts]
        return Evidence(
            layer=layer,
            call=call,
            runs=runs,
            backends=self._backends,
            tables=self.tables,
            implied=implied,
            pad_conventions=self._conventions,
            contracts=contracts,
            known_problems=matching(bad, layer, runs, facts),
            cached_recipe=self._cached_recipe(observation),
        )

    def _cached_recipe(self, observation: Observation) -> tuple[str, str] | None:
        cache = observation.applied.cache
        if cache is None or cache.recipe_digest is None:
            return None
        return self._recipes_by_digest(observation).get(cache.recipe_digest)

    def _decision(self, observation: Observation) -> Decision | None:
        query = observation.query
        return self._memo.get("decisions or none", query, lambda: self._resolve(query))

    def _resolve(self, query: Query) -> Decision | None:
        try:
            return self._resolver.resolve(query, kernels=True)
        except (NoRecipeError, QueryError, LayoutError):
            return None

    def _recipes_by_digest(self, observation: Observation) -> dict[str, tuple[str, str]]:
        """Return recipe and w13 layout by decision digest, for all recipes."""
        query = observation.query
        return self._memo.get("recipes by digest", query, lambda: dict(self._digest_recipes(query)))

    def _digest_recipes(self, query: Query) -> Iterator[tuple[str, tuple[str, str]]]:
        try:
            case = open_case(query, self.book, self._memo)
            sizes = case.sizes
        except (NoRecipeError, QueryError):
            return
        for recipe in self.book.recipes.values():
            try:
                tensors = tensor_decisions(recipe, sizes, case.arch)
            except (QueryError, LayoutError):
                continue
            call = case.call(recipe, sizes, tensors)
            digest = decision_digest(recipe.id, tensors, call, recipe.env)
            yield digest, (recipe.id, recipe.tensors["w13_weight"].layout)


def _run(rules: Sequence[CheckRule], evidence: Evidence) -> list[Finding]:
    return [finding for rule in rules for finding in islice(rule.check(evidence), 16)]

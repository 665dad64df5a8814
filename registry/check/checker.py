"""Checker: complete an observation, try every possible call, run every rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice

from preshuffle.registry.base.errors import LayoutError, NoRecipeError, QueryError
from preshuffle.registry.base.limits import MAX_PROBLEMS, more
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.base.suggestions import suggestion
from preshuffle.registry.check.deployment.backends import Backends
from preshuffle.registry.check.deployment.evidence import Evidence, matching
from preshuffle.registry.check.deployment.implied import implied_note, implied_runs, with_engine_switches
from preshuffle.registry.check.deployment.kernel_runs import KernelRun, kernel_runs
from preshuffle.registry.check.judgement import Judgement, in_every_version
from preshuffle.registry.check.rule_table import RULES, CheckRule
from preshuffle.registry.check.rules.kernels import without_untuned_beside
from preshuffle.registry.check.verdict import verdict_of
from preshuffle.registry.layer import (
    MoELayer,
    PossibleCall,
    Predictor,
    layer_of,
    possible_calls,
    supposed_layers,
)
from preshuffle.registry.loading import Book, Compiled, Entries, backend_reads
from preshuffle.registry.resolve import EngineRuns, call_decision, engine_notes_of, tensor_decisions
from preshuffle.registry.values.decision import ObservedRead
from preshuffle.registry.values.digest import decision_digest
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.query import Query
from preshuffle.registry.values.report import Report

_ON_THE_CALL = tuple(rule for rule in RULES if rule.on_call)
_ON_OBSERVED = tuple(rule for rule in RULES if not rule.on_call)
_NO_KERNEL = frozenset({"unsupported", "version_unsupported"})
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

    def __init__(self, book: Book, predictor: Predictor | None = None, memo: Memo | None = None) -> None:
        """Index the book's entries about deployments.

        Args:
            book: whose rules, contracts and deny-lists count.
            predictor: knows the kernel tables; None has none.
            memo: stores what many deployments share.
        """
        self.book = book
        self._memo = memo or Memo()
        self._predictor = predictor or Predictor(None, self._memo)
        self._backends = Backends(book)
        self._contracts = Entries(book.entries["contracts"].values())
        self._known_bad = Entries(book.entries["known_bad"].values())
        self.reads_deployment = self._contracts.reads("deployment") or self._known_bad.reads("deployment")
        self._conventions = tuple(map(Compiled.of, book.entries["pad_conventions"].values()))

    def check(self, observation: Observation) -> Report:
        """Compare the bytes, call and kernels of a deployment with each other.

        Args:
            observation: what was done; what it leaves out is unknown, and nothing is concluded from it.
        """
        layer = layer_of(observation.query, self.book, self._memo, observation.applied)
        judged = self._judge(supposed_layers(observation.query, self.book, self._memo, observation.applied))
        return Report(
            verdict=verdict_of(judged),
            findings=judged.findings,
            notes=(
                *self._arch_notes(layer),
                *_layout_notes(observation, self.book),
                *engine_notes_of(layer),
                *implied_note(layer, judged.evidence.implied),
                *filter(None, [layer.slots.unknown_table, judged.note]),
            ),
            reads=(*_aiter_reads(judged.evidence.runs), *_backend_reads(judged.evidence)),
        )

    def findings_of(self, layers: Iterator[MoELayer], *, kernels: bool = True) -> tuple[Finding, ...]:
        """Return what is wrong with a layer.

        Args:
            layers: it with what was applied, under each AITER that it may run on (``supposed_layers``).
            kernels: without them only what is wrong whichever kernel AITER picks.
        """
        return self._judge(layers, kernels=kernels).findings

    def _judge(self, layers: Iterator[MoELayer], *, kernels: bool = True) -> Judgement:
        judged = (self._judge_stated(with_engine_switches(layer), kernels) for layer in layers)
        found = in_every_version(next(judged), judged)
        return replace(found, findings=without_untuned_beside(found.evidence, found.findings))

    def _judge_stated(self, layer: MoELayer, kernels: bool) -> Judgement:
        calls = possible_calls(layer) if kernels else iter(())
        first = self._evidence(layer, next(calls, None), implied_runs(layer, self._backends))
        findings = [finding for rule in _ON_OBSERVED for finding in rule.check(first)]
        on_call, certain = self._call_findings(first, calls)
        findings += on_call
        findings.sort(key=lambda finding: finding.severity != "error")
        return Judgement(first, tuple(_listed(findings)), certain)

    @staticmethod
    def _arch_notes(layer: MoELayer) -> tuple[str, ...]:
        """Return what a GPU's unknown name must be told."""
        names = layer.book.arch_names
        return () if layer.arch else (names.unknown(layer.requested.arch),)

    def _call_findings(self, first: Evidence, others: Iterator[PossibleCall]) -> tuple[list[Finding], bool]:
        """Return findings that depend on the call, and whether no doubtful call acquits it.

        They are those of the most plausible call. Errors count only if every possible call has some; where all calls
        share an error, only shared errors are reported, since the others may be of a call that was not made. A call
        that could not run, or whose kernels read what is not known, acquits nothing, unless the first is no better.
        """
        found = _run(_ON_THE_CALL, first)
        runs, certain = _can_run(first, found), True
        shared = {finding.code for finding in found}
        for call in others if found else ():
            evidence = self._evidence(first.layer, call, first.implied)
            other = _run(_ON_THE_CALL, evidence)
            can_run = _can_run(evidence, other)
            if runs and not can_run:
                continue
            codes = {finding.code for finding in other}
            if not _has_errors(other):
                certain = certain and (can_run or not _has_errors(found))
                found = [finding for finding in found if finding.severity == "warning"]
            found = [finding for finding in found if finding.severity == "error" or finding.code in codes]
            shared &= codes
            if not found:
                break
        shared_errors = [finding for finding in found if finding.severity == "error" and finding.code in shared]
        if shared_errors:
            found = [finding for finding in found if finding.severity == "warning" or finding in shared_errors]
        return found, certain

    def _evidence(self, layer: MoELayer, call: PossibleCall | None, implied: EngineRuns) -> Evidence:
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
            tables=self._predictor.tables,
            implied=implied,
            pad_conventions=self._conventions,
            contracts=contracts,
            known_problems=matching(bad, layer, runs, facts),
            cached_recipe=self._cached_recipe(layer),
        )

    def _cached_recipe(self, layer: MoELayer) -> tuple[str, str] | None:
        cache = layer.applied.cache
        if cache is None or cache.recipe_digest is None:
            return None
        query = layer.requested
        recipes = self._memo.get("recipes by digest", query, lambda: dict(self._digest_recipes(query)))
        return recipes.get(cache.recipe_digest)

    def _digest_recipes(self, query: Query) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yield recipe and w13 layout by decision digest, for all recipes."""
        try:
            layer = layer_of(query, self.book, self._memo).checked()
            sizes = layer.sizes
        except (NoRecipeError, QueryError):
            return
        cut_by_rules = ((rule.use, rule.shard) for rule in self.book.rules.values() if rule.use and rule.shard)
        for name, shard in dict.fromkeys((*((name, None) for name in self.book.recipes), *cut_by_rules)):
            recipe = self.book.recipes[name]
            try:
                tensors = tensor_decisions(recipe, sizes, layer.known_arch, layer.book, shard)
            except (QueryError, LayoutError):
                continue
            call = call_decision(recipe, layer, tensors)
            digest = decision_digest(recipe.id, tensors, call, recipe.env)
            yield digest, (recipe.id, recipe.tensors["w13_weight"].layout)


def _aiter_reads(runs: Sequence[KernelRun]) -> tuple[ObservedRead, ...]:
    """Return what AITER's kernels read, each once, with how that is known."""
    found = dict.fromkeys(
        (role, layouts[0], *run.known.get(role, (None, None)))
        for run in runs
        if run.reader == "aiter" and not run.error
        for role, layouts in run.reads.items()
        if len(layouts) == 1
    )
    return tuple(_read(*item) for item in found)


def _backend_reads(evidence: Evidence) -> tuple[ObservedRead, ...]:
    """Return which observed layouts backends' own kernels read, with evidence."""
    layer, query = evidence.layer, evidence.layer.query
    backends = tuple(dict.fromkeys(run.backend for run in evidence.runs if run.reader == "own" and run.backend))
    if not backends:
        return ()
    layouts: dict[str, str] = {
        role: tensor.layout.id for role, tensor in layer.tensors.items() if tensor.layout is not None
    }
    facts = (query.arch, query.weight_dtype, query.activation)

    def reads() -> tuple[ObservedRead, ...]:
        found = (read for id in backends for read in backend_reads(layer.book, id, layouts, facts))
        return tuple(dict.fromkeys(found))

    return layer.memo.get("backend reads", (backends, tuple(layouts.items()), facts), reads)


@lru_cache(maxsize=1024)
def _read(role: str, layout: str, kind: str | None, id: str | None) -> ObservedRead:
    return ObservedRead(role=role, layout=layout, known=kind, evidence=id)


def _layout_notes(observation: Observation, book: Book) -> Iterator[str]:
    """Yield what to say of layouts that the book does not know: nothing is concluded from them."""
    known = (*book.known_layouts, *book.entries["packings"])
    for role, tensor in observation.applied.tensors.items():
        if tensor.layout is not None and tensor.layout not in known:
            yield f"{role}: unknown layout {tensor.layout!r}{suggestion(tensor.layout, sorted(known))}"


def _listed(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Yield the first findings of each code, and how many more there are."""
    total = Counter(finding.code for finding in findings)
    seen: Counter[str] = Counter()
    for finding in findings:
        seen[finding.code] += 1
        if seen[finding.code] <= MAX_PROBLEMS:
            yield finding
        elif seen[finding.code] == total[finding.code]:
            message = more(total[finding.code] - MAX_PROBLEMS, "findings of this kind")
            yield Finding(code=finding.code, severity=finding.severity, message=message)


def _can_run(evidence: Evidence, findings: Sequence[Finding]) -> bool:
    """Return whether a call has kernels, and it is known what they read."""
    if any(finding.code in _NO_KERNEL for finding in findings):
        return False
    return bool(evidence.runs) and all(run.reads and not run.blocked for run in evidence.runs)


def _has_errors(findings: Sequence[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def _run(rules: Sequence[CheckRule], evidence: Evidence) -> list[Finding]:
    return [finding for rule in rules for finding in islice(rule.check(evidence), 16)]

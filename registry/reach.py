"""Reachability of rules: a query that each rule answers.

The query is searched for, and put to the registry as any other would be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from preshuffle.registry import Registry
from preshuffle.registry.base.errors import NoRecipeError, Problem, QueryError
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.base.words import Activation, Dtype, QuantType, RowOrder
from preshuffle.registry.entries import Condition, Rule, Scalar
from preshuffle.registry.layer import layer_of
from preshuffle.registry.loading import Book
from preshuffle.registry.resolve import REQUIRED_OF, RuleTrial, choose, try_rule
from preshuffle.registry.values.query import Query

_MOST_TRIES = 2000
_MOST_NAMED = 4
_SAMPLE_LAYER: Mapping[str, Scalar] = {
    "hidden_size": 4096,
    "intermediate_size": 2048,
    "num_experts": 64,
    "top_k": 4,
    "activation": "Silu",
    "activation_dtype": "bf16",
    "weight_dtype": "bf16",
    "quant_type": "No",
    "gate_up_order": "GGUU",
    "bias": False,
    "arch": "gfx950",
    "model": "nobody/knows-this",
}
_KNOWN_VALUES: Mapping[str, tuple[Scalar, ...]] = {
    "weight_dtype": get_args(Dtype),
    "activation_dtype": get_args(Dtype),
    "quant_type": get_args(QuantType),
    "activation": get_args(Activation),
    "gate_up_order": get_args(RowOrder),
    "gated": (True, False),
    "bias": (False, True),
    "tp": (1, 2, 4, 8),
    "ep": (1, 8),
    "deployment": (None, "another"),
    "hidden_size": (4096, 7168),
    "intermediate_size": (2048, 4096, 192),
    "cu_num": (None, 304, 256, 80),
}


def reach_problems(registry: Registry) -> Iterator[Problem]:
    """Yield problems of rules without a query or with wrong bytes.

    That is: no query was found that the rule answers, or the kernels read other bytes.
    """
    book = registry.book
    reach = Reach(book)
    for rule in book.rules.values():
        place = book.places["rules", rule.id]
        query = reach.witness(rule)
        if query is None:
            if place.packaged and book.overlaid:
                continue  # an operator's rules may take all that it took
            names = [repr(name) for name in sorted(reach.winners)[:_MOST_NAMED]]
            instead = (
                f": {' or '.join(names)} {'answers' if len(names) == 1 else 'answer'} in its place" if names else ""
            )
            yield place.problem(f"no query was found that rule {rule.id!r} answers{instead}")
        elif rule.use is not None:
            yield from (place.problem(text, "use") for text in _layout_mismatches(registry, query))


def _layout_mismatches(registry: Registry, query: Query) -> list[str]:
    """Return the layout mismatches of a query's decision.

    Engines that are known to call their kernels wrongly are left out.
    """
    try:
        decision = registry.resolve(query)
    except (NoRecipeError, QueryError):
        return []
    passed = decision.call.gate_mode_passed
    if not passed or any(finding.code == "contract_mismatch" for finding in decision.findings):
        return []
    mismatches = (finding.message for finding in decision.findings if finding.code == "layout_mismatch")
    return list(dict.fromkeys(mismatches))  # of several tensors in one layout


class Reach:
    """Search for queries that rules answer.

    Attributes:
        winners: rules that answered queries of the last search in place of the one that was searched for.
    """

    def __init__(self, book: Book, more: Iterable[Rule] = ()) -> None:
        """Collect the values that any rule speaks of, by field.

        Args:
            book: whose rules are searched for.
            more: rules of other books.
        """
        self._book = book
        self._memo = Memo()
        self._conditions: list[tuple[str, Condition]] = []
        self.winners: set[str] = set()
        self._values: dict[str, dict[Scalar, None]] = {name: dict.fromkeys(of) for name, of in _KNOWN_VALUES.items()}
        self._values["arch"] = dict.fromkeys(book.archs)
        self._values["model"] = {"nobody/knows-this": None}
        self._values["aiter"] = dict.fromkeys((None, *(entry.since for entry in book.features.values())))
        for rule in (*book.rules.values(), *more):
            for name, condition in rule.conditions().items():
                self._values.setdefault(name, {None: None}).update(dict.fromkeys(_samples(condition)))
        for flag in book.flags.values():
            self._values.setdefault(f"env.{flag.id}", {None: None}).update(dict.fromkeys(flag.values))

    def witness(self, rule: Rule, beside: Rule | None = None, tries: int = _MOST_TRIES) -> Query | None:
        """Return a query that a rule answers; None where none was found.

        Args:
            rule: a rule of the book.
            beside: a rule whose conditions the query has to meet, too.
            tries: number of queries after which the search ends.
        """
        self.winners = set()
        self._conditions = [*rule.conditions().items(), *(beside.conditions().items() if beside else ())]
        first = self._first(rule)
        waiting, seen = deque([first]), {frozenset(first.items())}
        while waiting and len(seen) < tries:
            fields = waiting.popleft()
            query = _query(fields)
            blockers = self._blockers(rule, query) if query else set(REQUIRED_OF)
            if query and not blockers:
                return query
            for name in sorted(blockers):
                for value in self._allowed(name):
                    changed = {**fields, name: value}
                    if frozenset(changed.items()) not in seen:
                        seen.add(frozenset(changed.items()))
                        waiting.append(changed)
        return None

    def _first(self, rule: Rule) -> dict[str, Scalar]:
        conditions = dict(self._conditions)
        known = "model" in conditions and self._book.model_names.find(str(next(iter(self._allowed("model")), "")))
        fields = {"arch": _SAMPLE_LAYER["arch"]} if known else {**_SAMPLE_LAYER, **self._kind(rule)}
        return {**fields, **{name: allowed[0] for name in conditions if (allowed := self._allowed(name))}}

    def _kind(self, rule: Rule) -> dict[str, Scalar]:
        """Return the kind of weights that a rule's recipe is for."""
        if rule.use is None:
            return {}
        recipe = self._book.recipes[rule.use]
        dtype = recipe.tensors["w13_weight"].dtype
        kind: dict[str, Scalar] = {"quant_type": recipe.call.quant_type}
        kind["weight_dtype"] = "fp8" if dtype.startswith("fp8") else dtype
        kind |= {"activation": recipe.requires.activation[0]} if recipe.requires.activation else {}
        kind |= {"gate_up_order": recipe.requires.gate_up_order[0]} if recipe.requires.gate_up_order else {}
        return kind

    def _allowed(self, name: str) -> list[Scalar]:
        conditions = [condition for of, condition in self._conditions if of == name]
        values = self._values.get(name, {None: None})
        return [value for value in values if all(condition.matches(value) for condition in conditions)]

    def _blockers(self, rule: Rule, query: Query) -> set[str]:
        """Return the fields that keep a rule from answering a query."""
        try:
            facts = layer_of(query, self._book, self._memo).checked().rule_facts
        except (NoRecipeError, QueryError):
            return set(REQUIRED_OF)
        trial: RuleTrial = try_rule(self._book, rule, facts)
        missed = {miss.field for miss in trial.misses}
        if any(name.startswith("env.") for name in missed):
            missed |= {"engine_version", "aiter"}
        if not trial.usable:
            return missed or set(REQUIRED_OF)
        choice = choose(self._book, facts)
        winner = choice.winner if choice else None
        if winner is None or winner.rule is rule:
            return set()
        self.winners.add(winner.rule.id)
        return set(winner.conditions)


def _query(fields: Mapping[str, Scalar]) -> Query | None:
    """Build the query with these facts; None if none has them."""
    plain = {name: value for name, value in fields.items() if value is not None and "." not in name}
    version = plain.pop("engine_version", None)
    engine: Any = {"name": plain.pop("engine"), "version": version} if plain.get("engine") else None
    env = {name[4:]: value for name, value in fields.items() if name.startswith("env.") and value is not None}
    plain.pop("engine", None)
    try:
        return Query.parse({**plain, "engine": engine, "env": env})
    except QueryError:
        return None


def _samples(condition: Condition) -> Iterator[Scalar]:
    """Yield values on either side of a condition."""
    yield from condition.values
    if condition.glob is not None:
        yield condition.glob.replace("*", "x").replace("?", "x")
    if condition.interval is not None:
        for part in condition.text.split(","):
            bound = part.strip().lstrip("<>=").strip()
            if condition.versioned:
                yield from (bound, f"{bound}.dev0", f"{bound}.post1")
            elif condition.field.startswith("env."):
                yield from (str(int(bound) + step) for step in (0, 1, -1))
            else:
                yield from (int(bound) + step for step in (0, 1, -1))

"""From a query to a decision: fill in what the model says, read the switches, pick the rule, derive everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from preshuffle.registry.books import Book
from preshuffle.registry.condition import Scalar
from preshuffle.registry.decision import Alternative, CallDecision, Decision, TensorDecision, digest_of
from preshuffle.registry.entries import ArchEntry, ModelEntry
from preshuffle.registry.errors import FieldProblem, NearMatch, NoRecipeError, QueryError
from preshuffle.registry.flags import Switches, read_switches
from preshuffle.registry.kernels import KernelTables
from preshuffle.registry.match import Tried, try_rules
from preshuffle.registry.near import near
from preshuffle.registry.predict import decision_findings, predict_buckets, predict_ranges
from preshuffle.registry.query import Query
from preshuffle.registry.recipe import Recipe
from preshuffle.registry.rule import facts_of
from preshuffle.registry.shapes import LayerSizes, call_decision, tensor_decisions
from preshuffle.registry.shared_experts import count_shared
from preshuffle.registry.words import Role

_NEEDED = (
    "weight_dtype",
    "quant_type",
    "activation",
    "activation_dtype",
    "gate_up_order",
    "hidden_size",
    "intermediate_size",
    "num_experts",
    "top_k",
    "bias",
)

_GIVEN = frozenset({"engine", "arch", "model", "weight_dtype", "quant_type", "activation", "gated"})
"""Fields that nobody can choose for a checkpoint on a machine."""


@dataclass(frozen=True, slots=True)
class Case:
    """A query with everything that the book adds to it.

    Attributes:
        query: as it was asked.
        full: the query with the model's facts filled in and the model's own id.
        model: the model's entry, where there is one.
        counted: why shared experts count among the experts; empty where none do.
    """

    query: Query
    full: Query
    arch: ArchEntry
    model: ModelEntry | None
    switches: Switches
    facts: Mapping[str, Scalar]
    counted: str = ""

    def call(self, recipe: Recipe, sizes: LayerSizes, tensors: Mapping[Role, TensorDecision]) -> CallDecision:
        """Return the call that a recipe needs on this layer, with the model's own numbers of the activation."""
        model = self.model
        swiglu = (self.full.swiglu_limit, model.swiglu_alpha if model else None)
        situ = (model.situ_beta, model.situ_linear_beta) if model else (None, None)
        return call_decision(recipe, sizes, tensors, swiglu, situ)

    @property
    def sizes(self) -> LayerSizes:
        """The layer's sizes.

        Raises:
            NoRecipeError: names the fields that neither the query nor a model's entry gives.
            QueryError: a token would need more experts than there are.
        """
        values: dict[str, Any] = self.full.model_dump(include=set(_NEEDED))
        skip = set() if self.full.gated else {"gate_up_order"}
        missing = [name for name in _NEEDED if values[name] is None and name not in skip]
        if missing:
            known = "" if self.model else f"no entry knows model {self.query.model!r}; "
            raise NoRecipeError(f"{known}the query must say: {', '.join(missing)}", missing=missing)
        if values["top_k"] > values["num_experts"]:
            text = f"{values['top_k']} experts for each token, of {values['num_experts']} in all"
            raise QueryError([FieldProblem("top_k", text)])
        return LayerSizes(
            hidden=values["hidden_size"],
            intermediate=values["intermediate_size"],
            experts=values["num_experts"],
            top_k=values["top_k"],
            gated=self.full.gated,
            bias=values["bias"],
            activation=values["activation"],
            quant_type=values["quant_type"],
            gate_up_order=values["gate_up_order"],
            tp=self.full.tp,
            ep=self.full.ep,
        )


def open_case(query: Query, book: Book) -> Case:
    """Fill in a query.

    Raises:
        NoRecipeError: the arch is unknown.
        QueryError: a switch has a value that it cannot have.
    """
    arch = book.archs.get(query.arch)
    if arch is None:
        names = ", ".join(near(query.arch, list(book.archs)))
        raise NoRecipeError(f"unknown arch {query.arch!r}; valid: {names}")
    model = find_model(query.model, book)
    full = query
    if model is not None:
        missing = {name: value for name, value in model.given().items() if getattr(query, name) is None}
        full = query.model_copy(update={**missing, "model": model.id})
    switches = read_switches(query, book)
    counted = None
    if model is not None and query.num_experts is None and query.top_k is None:
        counted = count_shared(model.shared_experts, full, switches, book)
    if counted is not None:
        full = full.model_copy(update=dict(counted.fields))
    reason = counted.reason if counted else ""
    return Case(query, full, arch, model, switches, facts_of(dict(full), switches.values), reason)


def find_model(name: str, book: Book) -> ModelEntry | None:
    """Return the entry that a model's name means: its id, an alias, or the longest glob among the aliases."""
    name = name.rstrip("/")  # a checkpoint's folder, as a shell completes it
    if name in book.models:
        return book.models[name]
    hits = [(alias, entry) for entry in book.models.values() for alias in entry.aliases if fnmatchcase(name, alias)]
    return max(hits, key=lambda hit: (hit[0] == name, len(hit[0])))[1] if hits else None


def resolve(query: Query, book: Book, tables: KernelTables | None) -> Decision:
    """Decide.

    Raises:
        NoRecipeError: no rule answers; the nearest are named.
        QueryError: the query contradicts itself.
    """
    case = open_case(query, book)
    tried = try_rules(book, case.facts)
    winner = next((item for item in tried if item.usable), None)
    if winner is None:
        raise _no_recipe(case, tried, book)
    if winner.recipe is None:
        raise _nothing_works(case, winner, tried)
    recipe = winner.recipe
    sizes = case.sizes
    tensors = tensor_decisions(recipe, sizes, case.arch)
    call = case.call(recipe, sizes, tensors)
    kernels = predict_buckets(case.full, case.arch, tensors, call, recipe.env, tables)
    ranges = predict_ranges(case.full, case.arch, tensors, call, recipe.env, tables)
    findings = (
        *case.switches.findings,
        *decision_findings(case.full, book, recipe, tensors, kernels, ranges),
    )
    return Decision(
        recipe=recipe.id,
        rule=winner.rule.id,
        reason=_reason(case, winner),
        tensors=tensors,
        call=call,
        env=recipe.env,
        kernels=kernels,
        alternatives=_alternatives(winner, recipe, tried),
        findings=findings,
        registry_digest=book.digest,
        decision_digest=decision_digest(recipe.id, tensors, call, recipe.env),
    )


def decision_digest(
    recipe: str, tensors: Mapping[Role, TensorDecision], call: CallDecision, env: Mapping[str, str]
) -> str:
    """Digest what the bytes and the call depend on, and nothing else."""
    return digest_of(
        {
            "recipe": recipe,
            "tensors": {role: tensor.model_dump(mode="json") for role, tensor in tensors.items()},
            "call": call.model_dump(mode="json"),
            "env": dict(env),
        }
    )


def _reason(case: Case, winner: Tried) -> str:
    named = [name for name in winner.exact if not name.startswith("env.")]
    listed = f"{', '.join(named[:-1])} and {named[-1]}" if len(named) > 1 else "".join(named)
    parts = [f"{listed} match exactly"] if named else []
    if case.model is not None and case.model.id != case.query.model:
        parts.append(f"{case.query.model} is read as {case.model.id}")
    used = {name.removeprefix("env.") for name in winner.required if name.startswith("env.")}
    for name, meaning in case.switches.honoured.items():
        state = "decided" if name in used else "is set and was read"
        parts.append(f"the switch {name}={case.query.env[name]} {state}: {meaning}")
    if case.counted:
        parts.append(case.counted)
    parts.append(winner.rule.because)
    return "; ".join(parts)


def _alternatives(winner: Tried, chosen: Recipe | None, tried: tuple[Tried, ...]) -> tuple[Alternative, ...]:
    """Every other recipe that was near: at most two conditions away, in what can be chosen.

    What is for another engine, GPU or kind of weights is no alternative, and where a model has rules of its own, they
    are those to choose among.
    """
    best: dict[str, tuple[Tried, Recipe]] = {}
    for item in tried:
        foreign = any(miss.field in _GIVEN for miss in item.misses)
        general = "model" in winner.required and "model" not in item.required
        if item.recipe is None or item.recipe is chosen or foreign or general or len(item.misses) > 2:
            continue
        known = best.get(item.recipe.id)
        if known is None or len(item.misses) < len(known[0].misses):
            best[item.recipe.id] = (item, item.recipe)
    return tuple(Alternative(recipe=name, why_not=_lost(item, recipe, winner)) for name, (item, recipe) in best.items())


def _lost(item: Tried, recipe: Recipe, winner: Tried) -> str:
    about = "; ".join(filter(None, (recipe.suits, recipe.validity)))
    if not item.usable:
        return f"{about}; rule {item.rule.id} {item.why_not}"
    return f"{about}; rule {item.rule.id} matches too, and {winner.rule.id} is more specific"


def _nothing_works(case: Case, winner: Tried, tried: tuple[Tried, ...]) -> NoRecipeError:
    """The most specific rule says that no recipe is right."""
    rule = winner.rule
    message = f"nothing works for {_asked(case)}: {rule.because} (rule {rule.id})"
    return NoRecipeError(message, _nearest(tried), rule=rule.id, evidence=rule.evidence)


def _nearest(tried: tuple[Tried, ...]) -> list[NearMatch]:
    """The three rules that fail by the least."""
    lost = [(len(item.misses) + len(item.lacking), item.rule.id, item) for item in tried if not item.usable]
    near = [(item, item.recipe) for *_, item in sorted(lost, key=lambda entry: entry[:2])]
    return [NearMatch(item.rule.id, recipe.id, item.why_not) for item, recipe in near if recipe is not None][:3]


def _asked(case: Case) -> str:
    asked = [f"activation_dtype {case.full.activation_dtype or 'unknown'}", case.query.arch]
    if case.query.engine:
        asked.append(f"engine {case.query.engine}")
    return f"{case.query.model} with {', '.join(asked)}"


def _no_recipe(case: Case, tried: tuple[Tried, ...], book: Book) -> NoRecipeError:
    nearest = _nearest(tried)
    query = case.query
    unknown = [name for name in _NEEDED if getattr(case.full, name) is None]
    if case.model is None:
        ids = near(query.model, list(book.models))
        message = f"no rule for model {query.model!r} on {query.arch}: no entry knows it (nearest: {', '.join(ids)})"
        if unknown:
            message += f"; a query for it must say: {', '.join(unknown)}"
        return NoRecipeError(message, nearest, unknown)
    message = f"no rule for {_asked(case)}"
    if unknown:
        message += f"; a query for it must say: {', '.join(unknown)}"
    return NoRecipeError(message, nearest, unknown)

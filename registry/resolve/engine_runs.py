"""Recipes that an engine may run for a layer, by its rules.

Nothing is concluded from what is not known: a rule that depends on an unknown fact is one possibility among others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from preshuffle.registry.base.words import Role
from preshuffle.registry.entries import Recipe, Scalar
from preshuffle.registry.layer import value_of
from preshuffle.registry.loading import Book, Prepared
from preshuffle.registry.resolve.requirements import divides, lacking

_READ: tuple[Role, ...] = ("w13_weight", "w2_weight")
_SHOWN = 3
_KERNELS = {"aiter": "AITER's kernels", "triton": "Triton's kernels", "mega": "MegaMoE", "flydsl": "FlyDSL's kernels"}


@dataclass(frozen=True, slots=True)
class EngineRun:
    """One recipe that an engine may run for a layer.

    Attributes:
        rule: id of the engine's rule.
        unset: switches that choose the backend and are not set as the recipe needs, as ``NAME=value``.
        depends: facts that the rule tests and that are not known.
    """

    rule: str
    recipe: Recipe
    unset: tuple[str, ...] = ()
    depends: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say whose kernels run, what they read, and on what that depends."""
        w13, w2 = (self.recipe.tensors[role].layout for role in _READ)
        read = f"both weights as {w13}" if w13 == w2 else f"w13 as {w13} and w2 as {w2}"
        text = f"{_KERNELS[self.recipe.call.backend]} (rule {self.rule}), which read {read}"
        text += f", if {' and '.join(self.unset)}" if self.unset else ""
        names = " and ".join(name.removeprefix("env.") for name in self.depends)
        return f"{text}, depending on {names}" if names else text


@dataclass(frozen=True, slots=True)
class EngineRuns:
    """What an engine may run for a layer.

    Attributes:
        runs: the recipes, the most specific rule first.
        complete: whether one of them runs for sure; else it may also be something that no rule describes.
        named: the backend that a switch names, where the rules do not tell.
    """

    runs: tuple[EngineRun, ...] = ()
    complete: bool = False
    named: str | None = None

    @property
    def backend(self) -> str | None:
        """Whose kernels run; None where it is not certain."""
        backends = {run.recipe.call.backend for run in self.runs}
        return backends.pop() if self.complete and len(backends) == 1 else None

    def reads(self) -> Mapping[str, tuple[str, ...]]:
        """Return the layouts that the recipes' kernels read, by role."""
        found: dict[str, dict[str, None]] = {}
        for run in self.runs:
            for role, tensor in run.recipe.tensors.items():
                if role in _READ or role.endswith("_weight_scale"):
                    found.setdefault(role, {})[tensor.layout] = None
        return {role: tuple(layouts) for role, layouts in found.items()}

    def note(self, engine: str) -> str | None:
        """Say what the engine runs; None where nothing is known."""
        if self.named is not None:
            return f"no kernel was reported: {engine} is set to run {self.named}; the bytes are judged by that"
        if not self.runs:
            return None
        texts = list({(run.recipe.call.backend, *self._layouts(run)): str(run) for run in reversed(self.runs)}.values())
        shown = "; or ".join(reversed(texts[-_SHOWN:]))
        if self.complete and len(texts) == 1:
            return f"no kernel was reported: {engine} runs {shown}; the bytes are judged by that"
        rest = "" if self.complete else "; or others"
        if any(run.unset for run in self.runs):
            rest = "; or, without that, another backend such as Triton, which reads plain bytes"
        return f"no kernel was reported: {engine} may run {shown}{rest}"

    @staticmethod
    def _layouts(run: EngineRun) -> tuple[str, ...]:
        return tuple(run.recipe.tensors[role].layout for role in _READ)


def engine_runs(
    book: Book, facts: Mapping[str, Scalar], unknown: Collection[str], reported: Collection[str]
) -> EngineRuns:
    """Return what a layer's engine may run.

    Args:
        book: whose rules count.
        facts: the layer's facts, as rules name them (``facts_of``), switches with their defaults.
        unknown: facts that were not reported although they have a value, such as a default.
        reported: switches that were reported; the others may be set, too.
    """
    engine = facts.get("engine")
    runs: list[EngineRun] = []
    described = True
    for prepared in book.rule_index.prepared:
        wanted = prepared.conditions.get("engine")
        if engine is None or wanted is None or not wanted.matches(engine):
            continue
        depends = _depends(prepared, facts, unknown)
        if depends is None:
            continue
        recipe = prepared.recipe
        if divides(prepared.rule, facts):
            continue
        if recipe is None or lacking(book, recipe, facts, prepared.rule.shard):
            described = False  # the engine raises, or runs what no rule describes
        else:
            unset = dict(_unset(book, recipe, facts))
            described = described and not unset
            if not unset.keys() & reported:
                texts = tuple(f"{name}={value}" for name, value in unset.items())
                runs.append(EngineRun(prepared.rule.id, recipe, texts, depends))
        if not depends:
            return EngineRuns(tuple(runs), described)
    return EngineRuns(tuple(runs))


def _depends(prepared: Prepared, facts: Mapping[str, Scalar], unknown: Collection[str]) -> tuple[str, ...] | None:
    """Return the unknown facts that a rule tests; None where a known one fails."""
    depends: list[str] = []
    for name, condition in prepared.conditions.items():
        value = facts.get(name)
        if name in unknown or (value is None and not _may_be_absent(name)):
            depends.append(name)
        elif not condition.matches(value):
            return None
    return tuple(depends)


def _may_be_absent(name: str) -> bool:
    """Whether leaving a fact out is a value of its own, as for switches."""
    return name.startswith("env.") or name in ("deployment", "engine_version", "producer", "all_to_all")


def _unset(book: Book, recipe: Recipe, facts: Mapping[str, Scalar]) -> Iterator[tuple[str, str]]:
    """Yield the switches that choose a recipe's backend and are not set so."""
    for name, value in recipe.env.items():
        flag = book.flags[name]
        if "backend" in flag.affects and value_of(flag, str(facts.get(f"env.{name}", ""))) != value:
            yield name, value

"""Enumerates the deployments that the book covers, as calls.

They are combinations of model, GPU, activation dtype and tensor-parallel size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from preshuffle.registry import Registry
from preshuffle.registry.base.errors import NoRecipeError, QueryError
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.base.words import Dtype
from preshuffle.registry.kernels import DispatchCall
from preshuffle.registry.layer import layer_of
from preshuffle.registry.resolve import call_of_decision, choose
from preshuffle.registry.values.query import Query

TP: Final = (1, 2, 4, 8)
ACTIVATIONS: Final[tuple[str, ...]] = get_args(Dtype)


@dataclass(frozen=True, slots=True)
class BookDeployment:
    """A deployment that some rule covers.

    Attributes:
        call: what its ranks call AITER with, at one token.
    """

    model: str
    arch: str
    recipe: str
    tp: int
    call: DispatchCall

    @property
    def label(self) -> str:
        """Its name for people."""
        return f"{self.model} on {self.arch}, TP {self.tp}, {self.recipe}"


def book_deployments(
    registry: Registry,
    models: Sequence[str],
    *,
    archs: Sequence[str] | None = None,
    sizes: Sequence[int] = TP,
    versions: Sequence[str | None] = (None,),
    **fields: Any,
) -> Iterator[BookDeployment]:
    """Yield the deployments of some models that have a recipe.

    Those whose number of compute units is not known are left out.

    Args:
        registry: whose rules decide.
        models: as a query names them.
        archs: GPUs, by any of their names; all of the book's by default.
        sizes: tensor-parallel sizes.
        versions: AITER's, tried in turn until one has a recipe.
        fields: the rest of the query; ``activation_dtype`` left out means each of them.
    """
    wanted = fields.pop("activation_dtype", None)
    seen: set[tuple[str, str, str, int]] = set()
    memo = Memo()
    for model in models:
        for arch in archs or list(registry.book.archs):
            for activation in [wanted] if wanted else ACTIVATIONS:
                for tp in sizes:
                    query = {"model": model, "arch": arch, "activation_dtype": activation, "tp": tp, **fields}
                    found = _first(registry, query, versions, memo)
                    if found is None or (key := (found.model, found.arch, found.recipe, tp)) in seen:
                        continue
                    seen.add(key)
                    yield found


def _first(
    registry: Registry, fields: dict[str, Any], versions: Sequence[str | None], memo: Memo
) -> BookDeployment | None:
    for version in versions:
        query = Query.parse({**fields, "aiter": version, "tokens": (1,)})
        try:
            layer = layer_of(query, registry.book, memo).checked()
            choice = choose(registry.book, layer.rule_facts)
            if choice is None or choice.winner.recipe is None:
                continue  # most combinations have no recipe, and nobody asks for the nearest ones
            decision = registry.resolve(query, kernels=False)
        except (NoRecipeError, QueryError):
            continue
        call = call_of_decision(decision, query, registry.book, 1, memo)
        if call is not None:
            return BookDeployment(layer.query.model, layer.query.arch, decision.recipe, query.tp, call)
    return None

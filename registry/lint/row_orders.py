"""Lint of recipes whose gate and up rows have no order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, get_args

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.base.words import Role, RowOrder
from preshuffle.registry.entries import Recipe
from preshuffle.registry.loading import Book

_W13: Final[tuple[Role, ...]] = ("w13_weight", "w13_weight_scale", "w13_bias")
_ORDERS: Final = tuple(f"order: {order}" for order in get_args(RowOrder))


def missing_orders(book: Book) -> Iterator[Problem]:
    """Yield recipes with tensors of gate and up that have no ``order``.

    Without one nothing knows where the gate's rows end. A recipe needs none if only rules for layers without a gate use
    it, and neither does a scale with one number for each expert.
    """
    lacking = [recipe for recipe in book.recipes.values() if _without_order(recipe)]
    if not lacking:
        return
    gated = {rule.use for rule in book.rules.values() if rule.when.get("gated") is not False}
    ungated = {rule.use for rule in book.rules.values()} - gated
    for recipe in lacking:
        if recipe.id not in ungated:
            first, *others = _without_order(recipe)
            also = f" (nor have {', '.join(others)})" if others else ""
            text = f"recipe {recipe.id!r}: {first} has rows of gate and up, and no order of them after loading{also}"
            yield book.places["recipes", recipe.id].problem(text, "tensors", first, valid=_ORDERS)


def _without_order(recipe: Recipe) -> list[Role]:
    """Return the tensors whose order is missing."""
    tensors = {role: recipe.tensors[role] for role in _W13 if role in recipe.tensors}
    if recipe.call.quant_type == "per_Tensor":
        tensors.pop("w13_weight_scale", None)
    return [role for role, tensor in tensors.items() if tensor.order is None]

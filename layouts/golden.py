"""A golden MoE layer: small, the same everywhere, and so uneven that no mistake cancels out.

Its structure is gpt-oss's: gate and up rows alternate, SwiGLU with a limit, biases, MXFP4. Gate and up differ in scale,
a row's scales differ from group to group, pre-activations reach the limit, and biases are as large as what they are
added to: swapping gate and up, dropping a bias, another limit, another row's scales or a halved result is never small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from preshuffle.layouts.accept import torch_shape
from preshuffle.layouts.reference import Routing, plain_forward, route
from preshuffle.registry import Decision, LayoutError, Query, Recipe, Registry
from preshuffle.registry.digest import decision_digest
from preshuffle.registry.predict import predict_kernels
from preshuffle.registry.resolve import open_case
from preshuffle.registry.shapes import tensor_decisions

SIZES: Final[dict[str, Any]] = {"hidden_size": 320, "intermediate_size": 320, "num_experts": 8, "top_k": 4}
"""Small, with gpt-oss's pads: 320 is padded by 192, as its 2880 is."""
MODEL: Final = "openai/gpt-oss-120b"
BOTH: Final = frozenset({"legacy", "generic"})
"""The tags of the two layouts that a layer like gpt-oss's can be in."""
_GATE, _UP, _DOWN = (-5, -3), (-4, -2), (-8, -5)
_GATE_BIAS, _UP_BIAS = (1.0, 1.0), (-3.0, 2.0)
_DOWN_BIAS = 8.0


def golden_query(arch: str = "gfx950", **fields: Any) -> Query:
    """Return the query of a golden layer; fields override it."""
    return Query.parse({"model": MODEL, "arch": arch, "activation_dtype": "bf16", **SIZES, **fields})


def recipes_named(names: str | None, registry: Registry, query: Query) -> tuple[Recipe, ...]:
    """Return the recipes that ids or tags mean, separated by commas; a tag means those that the query can choose from.

    Without names: the recipes of ``BOTH`` that the query can choose from, else all that it can choose from.

    Raises:
        LayoutError: nothing has the name, or the query can choose nothing that has the tag.
        NoRecipeError: no rule answers the query.
    """
    recipes = registry.book.recipes
    decision = registry.resolve(query)
    choice = (decision.recipe, *(one.recipe for one in decision.alternatives))
    if names is None:
        both = [id for id in choice if BOTH & set(recipes[id].tags)]
        return tuple(recipes[id] for id in both or choice)
    found: dict[str, Recipe] = {}
    for name in (part.strip() for part in names.split(",")):
        tagged = [recipe.id for recipe in recipes.values() if name in recipe.tags]
        meant = [name] if name in recipes else [id for id in choice if id in tagged]
        if not meant:
            tags = ", ".join(sorted({tag for recipe in recipes.values() for tag in recipe.tags}))
            what = f"tagged {name!r} is for this layer" if tagged else f"is called {name!r}"
            raise LayoutError(f"no recipe {what}; valid: {', '.join(choice)}; or the tags {tags}")
        found |= {id: recipes[id] for id in meant}
    return tuple(found.values())


def decide_for(recipe: Recipe, query: Query, registry: Registry) -> Decision:
    """Decide as ``resolve`` does, but for a given recipe.

    Raises:
        NoRecipeError: no rule answers the query at all.
        QueryError: the query contradicts itself.
    """
    decision = registry.resolve(query)
    if decision.recipe == recipe.id:
        return decision
    case = open_case(query, registry.book)
    sizes = case.sizes
    tensors = tensor_decisions(recipe, sizes, case.arch)
    call = case.call(recipe, sizes, tensors)
    return decision.model_copy(
        update={
            "recipe": recipe.id,
            "rule": "",
            "reason": f"recipe {recipe.id} was asked for",
            "tensors": tensors,
            "call": call,
            "env": recipe.env,
            "kernels": predict_kernels(case.full, case.arch, tensors, call, recipe.env, registry.tables)[0],
            "alternatives": (),
            "findings": (),
            "decision_digest": decision_digest(recipe.id, tensors, call, recipe.env),
        }
    )


@dataclass(frozen=True)
class Golden:
    """The layer's plain tensors, as one rank reads them from a checkpoint, and the decision that they are for."""

    decision: Decision
    top_k: int
    tensors: dict[str, torch.Tensor]

    def inputs(self, tokens: int) -> tuple[torch.Tensor, Routing]:
        """Return hidden states ``bf16 [tokens, hidden]`` and a routing, the same every time."""
        random = torch.Generator().manual_seed(tokens)
        hidden = self.decision.tensors["w2_weight"].logical_shape[1]
        x = torch.randn(tokens, hidden, generator=random, dtype=torch.float64).to(torch.bfloat16)
        routing = route(tokens, self.tensors["w13_weight"].shape[0], self.top_k, seed=tokens)
        return x, Routing(routing.experts, routing.weights.to(torch.float32))

    def reference(self, x: torch.Tensor, routing: Routing) -> torch.Tensor:
        """Run the layer in float64 on the plain tensors: ``[tokens, hidden]``."""
        return plain_forward(self.tensors, self.decision, x.double(), routing)


def make_golden(decision: Decision, top_k: int, seed: int = 0) -> Golden:
    """Make the golden layer of a decision.

    Raises:
        LayoutError: the decision is not for MXFP4 weights and SwiGLU, which is what the reference computes.
    """
    dtype, call = decision.tensors["w13_weight"].dtype, decision.call
    if dtype != "fp4x2" or call.quant_type != "per_1x32" or call.activation != "Swiglu":
        text = f"{dtype}, {call.quant_type} and {call.activation}"
        raise LayoutError(f"no golden layer for {text}; valid: fp4x2, per_1x32 and Swiglu")
    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for role, decided in decision.tensors.items():
        shape = torch_shape(decided.logical_shape, decided)
        if role.endswith("_weight"):
            tensors[role] = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
        elif role.endswith("_scale"):
            tensors[role] = _scales(shape, role.startswith("w13"), decided.source_order == "GUGU", random)
        elif role.endswith("_bias"):
            tensors[role] = _bias(shape, role.startswith("w13"), decided.source_order == "GUGU", random)
    return Golden(decision, top_k, tensors)


def mistakes(golden: Golden) -> Iterator[tuple[str, Callable[[torch.Tensor, Routing], torch.Tensor]]]:
    """Yield what kernels and loaders do wrong, each with the layer's output then."""
    tensors, decision = golden.tensors, golden.decision
    w13 = [role for role in tensors if role.startswith("w13")]
    alternating = decision.tensors["w13_weight"].source_order == "GUGU"
    swapped = {role: _swapped(tensors[role], alternating) for role in w13}
    yield "gate and up swapped", replace(golden, tensors={**tensors, **swapped}).reference
    for bias in ("w13_bias", "w2_bias"):
        if bias in tensors:
            without = {**tensors, bias: torch.zeros_like(tensors[bias])}
            yield f"{bias} dropped", replace(golden, tensors=without).reference
    biases = {role: torch.zeros_like(tensor) for role, tensor in tensors.items() if role.endswith("_bias")}
    if biases:
        yield "both biases dropped", replace(golden, tensors={**tensors, **biases}).reference
    if decision.call.swiglu_limit is not None:
        yield "no limit", replace(golden, decision=_with_limit(decision, None)).reference
    yield "halved", lambda x, routing: golden.reference(x, routing) * 0.5
    yield "doubled", lambda x, routing: golden.reference(x, routing) * 2
    for role in ("w13_weight_scale", "w2_weight_scale"):
        if role in tensors:
            moved = {**tensors, role: tensors[role].roll(1 + alternating, dims=1)}
            yield f"{role} of other rows", replace(golden, tensors=moved).reference
    other = "GGUU" if alternating else "GUGU"
    decided = decision.tensors["w13_weight"].model_copy(update={"source_order": other})
    order = decision.model_copy(update={"tensors": {**decision.tensors, "w13_weight": decided}})
    yield f"rows read as {other}", replace(golden, decision=order).reference


def _with_limit(decision: Decision, limit: float | None) -> Decision:
    return decision.model_copy(update={"call": decision.call.model_copy(update={"swiglu_limit": limit})})


def _swapped(tensor: torch.Tensor, alternating: bool) -> torch.Tensor:
    half = tensor.shape[1] // 2
    if not alternating:
        return torch.cat([tensor[:, half:], tensor[:, :half]], dim=1)
    return torch.stack([tensor[:, 1::2], tensor[:, 0::2]], dim=2).flatten(1, 2)


def _mixed(gate: torch.Tensor, up: torch.Tensor, alternating: bool) -> torch.Tensor:
    return torch.stack([gate, up], dim=2).flatten(1, 2) if alternating else torch.cat([gate, up], dim=1)


def _scales(shape: tuple[int, ...], w13: bool, alternating: bool, random: torch.Generator) -> torch.Tensor:
    """Return e8m0 codes: powers of two within the bounds of gate, up or down."""

    def between(bounds: tuple[int, int], rows: int) -> torch.Tensor:
        low, high = bounds
        codes = torch.randint(127 + low, 128 + high, (shape[0], rows, shape[2]), generator=random)
        return codes.to(torch.uint8)

    if not w13:
        return between(_DOWN, shape[1])
    return _mixed(between(_GATE, shape[1] // 2), between(_UP, shape[1] // 2), alternating)


def _bias(shape: tuple[int, ...], w13: bool, alternating: bool, random: torch.Generator) -> torch.Tensor:
    if not w13:
        return (torch.randn(shape, generator=random) * _DOWN_BIAS).to(torch.bfloat16)
    half = (shape[0], shape[1] // 2)
    gate, up = (torch.randn(half, generator=random) * size + mean for mean, size in (_GATE_BIAS, _UP_BIAS))
    return _mixed(gate, up, alternating).to(torch.bfloat16)

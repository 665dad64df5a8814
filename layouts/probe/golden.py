"""Golden MoE layers: small, deterministic and asymmetric.

So uneven that no mistake cancels out.

By default its structure is gpt-oss's: gate and up rows alternate, SwiGLU with a limit, biases, MXFP4. Gate and up
differ in scale, a row's scales differ from group to group, pre-activations reach the limit, and biases are as large as
what they are added to: swapping gate and up, dropping a bias, another limit, another row's scales or a halved result is
never small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import torch

from preshuffle.layouts.probe.golden_layers import why_no_layer
from preshuffle.layouts.probe.golden_values import plain_values, swap_gate_up
from preshuffle.layouts.proof import Routing, plain_forward, random_routing
from preshuffle.registry import Decision, LayoutError, Query, Recipe, Registry, TensorDecision
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.base.suggestions import close_to
from preshuffle.registry.layer import Predictor, layer_of
from preshuffle.registry.loading import Book
from preshuffle.registry.resolve import applied_by, call_decision, predict_kernels, query_of_kernel, tensor_decisions
from preshuffle.registry.values.digest import decision_digest

GPT_OSS_TAGS: Final = frozenset({"legacy", "generic"})
"""The tags of the two layouts that a layer like gpt-oss's can be in."""


def select_recipes(names: str | None, registry: Registry, query: Query) -> tuple[Recipe, ...]:
    """Return the recipes of ids or tags, separated by commas.

    A tag means those that the query can choose from.

    Without names: the recipes of ``GPT_OSS_TAGS`` that the query can choose from, else all that it can choose from.

    Raises:
        LayoutError: nothing has the name, or the query can choose nothing that has the tag.
        NoRecipeError: no rule answers the query.
    """
    recipes = registry.book.recipes
    decision = registry.resolve(query)
    choice = (decision.recipe, *(one.recipe for one in decision.alternatives))
    if names is None:
        both = [id for id in choice if GPT_OSS_TAGS & set(recipes[id].tags)]
        return tuple(recipes[id] for id in both or choice)
    found: dict[str, Recipe] = {}
    for name in (part.strip() for part in names.split(",")):
        tagged = [recipe.id for recipe in recipes.values() if name in recipe.tags]
        meant = [name] if name in recipes else [id for id in choice if id in tagged]
        if not meant:
            tags = ", ".join(sorted({tag for recipe in recipes.values() for tag in recipe.tags}))
            what = f"tagged {name!r} is for this layer" if tagged else f"is called {name!r}"
            close = " or ".join(close_to(name, recipes)) if not tagged else ""
            hint = f"; did you mean {close}?" if close else ""
            raise LayoutError(f"no recipe {what}{hint}; valid: {', '.join(choice)}; or the tags {tags}")
        found |= {id: recipes[id] for id in meant}
    return tuple(found.values())


def decide_with_recipe(recipe: Recipe, query: Query, registry: Registry) -> Decision:
    """Decide as ``resolve`` does, but for a given recipe.

    Raises:
        NoRecipeError: no rule answers the query at all.
        QueryError: the query contradicts itself.
    """
    decision = registry.resolve(query)
    if decision.recipe == recipe.id:
        return decision
    book = registry.book
    layer = layer_of(query, book).checked()
    decided = tensor_decisions(recipe, layer.sizes, layer.known_arch, layer.book)
    tensors = {role: in_layout(tensor, tensor.layout, book) for role, tensor in decided.items()}
    call = call_decision(recipe, layer, tensors)
    applied = applied_by(tensors, call)
    seen = layer_of(query_of_kernel(query, applied, call, recipe.env), book, applied=applied)
    kernels = predict_kernels(seen, call, Predictor(registry.tables, Memo()))
    return decision.model_copy(
        update={
            "recipe": recipe.id,
            "rule": "",
            "reason": f"recipe {recipe.id} was requested",
            "tensors": tensors,
            "call": call,
            "env": recipe.env,
            "kernels": kernels,
            "alternatives": (),
            "findings": (),
            "decision_digest": decision_digest(recipe.id, tensors, call, recipe.env),
        }
    )


def in_layout(tensor: TensorDecision, layout: str, book: Book) -> TensorDecision:
    """Return a tensor's decision with another layout of the book.

    With its line, where it is an overlay's.
    """
    return tensor.model_copy(update={"layout": layout, "layout_line": book.own_lines.get(layout)})


@dataclass(frozen=True)
class Golden:
    """Golden layer: plain tensors and their decision.

    The tensors are as one rank reads them from a checkpoint.
    """

    decision: Decision
    top_k: int
    tensors: dict[str, torch.Tensor]

    def inputs(self, tokens: int) -> tuple[torch.Tensor, Routing]:
        """Return deterministic hidden states and routing.

        Hidden states are ``bf16 [tokens, hidden]``.
        """
        random = torch.Generator().manual_seed(tokens)
        hidden = self.decision.tensors["w2_weight"].logical_shape[1]
        x = torch.randn(tokens, hidden, generator=random, dtype=torch.float64).to(torch.bfloat16)
        routing = random_routing(tokens, self.tensors["w13_weight"].shape[0], self.top_k, seed=tokens)
        return x, Routing(routing.experts, routing.weights.to(torch.float32))

    def reference(self, x: torch.Tensor, routing: Routing) -> torch.Tensor:
        """Run the layer in float64 on plain tensors: ``[tokens, hidden]``."""
        return plain_forward(self.tensors, self.decision, x.double(), routing)


def make_golden(decision: Decision, top_k: int, seed: int = 0) -> Golden:
    """Create the golden layer of a decision.

    Raises:
        LayoutError: there is none for its activation or its dtypes; the message says why.
    """
    call = decision.call
    reason = why_no_layer(call.activation, call.swiglu_limit, decision.tensors["w13_weight"].order is not None)
    if reason is not None:
        raise LayoutError(reason)
    return Golden(decision, top_k, plain_values(decision, seed))


def mistakes(golden: Golden) -> Iterator[tuple[str, Callable[[torch.Tensor, Routing], torch.Tensor]]]:
    """Yield common mistakes, each with the layer's wrong output.

    Of kernels and of loaders.
    """
    tensors, decision = golden.tensors, golden.decision
    w13 = [role for role, tensor in tensors.items() if role.startswith("w13") and tensor.dim() > 1]
    alternating = decision.tensors["w13_weight"].source_order == "GUGU"
    other_way = {role: swap_gate_up(tensors[role], alternating) for role in w13}
    yield "gate and up swapped", replace(golden, tensors={**tensors, **other_way}).reference
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
            rows = decision.call.quant_type != "per_Tensor"
            what, by, axis = ("rows", 1 + alternating, 1) if rows else ("experts", 1, 0)
            moved = {**tensors, role: tensors[role].roll(by, dims=axis)}
            yield f"{role} of other {what}", replace(golden, tensors=moved).reference
    other = "GGUU" if alternating else "GUGU"
    decided = decision.tensors["w13_weight"].model_copy(update={"source_order": other})
    order = decision.model_copy(update={"tensors": {**decision.tensors, "w13_weight": decided}})
    yield f"rows read as {other}", replace(golden, decision=order).reference


def _with_limit(decision: Decision, limit: float | None) -> Decision:
    return decision.model_copy(update={"call": decision.call.model_copy(update={"swiglu_limit": limit})})

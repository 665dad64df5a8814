"""Reason of a decision, in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from preshuffle.registry.entries import Call
from preshuffle.registry.layer import MoELayer
from preshuffle.registry.loading import Prepared


def reason(layer: MoELayer, winner: Prepared, notes: Iterable[str] = ()) -> str:
    """Return the text of why a rule was chosen.

    Args:
        layer: the completed query.
        winner: the rule.
        notes: what the answer must say of the engine (``engine_notes``).
    """
    conditions = winner.conditions
    named = winner.named
    names = f"{', '.join(named[:-1])} and {named[-1]}" if len(named) > 1 else "".join(named)
    parts = [f"{names} match exactly"] if named else []
    if layer.model is not None and layer.model.id != layer.requested.model:
        parts.append(f"{layer.requested.model} is read as {layer.model.id}")
    for name, meaning in layer.switches.honoured.items():
        state = "decided" if f"env.{name}" in conditions else "is set and was read"
        parts.append(f"the switch {name}={layer.requested.env[name]} {state}: {meaning}")
    parts += (finding.message for finding in layer.switches.assumed)
    if layer.query.tp != layer.requested.tp:
        parts.append(
            f"with expert parallelism {layer.requested.engine} cuts no expert: tp {layer.requested.tp} counts as 1"
        )
    if layer.slots.reason:
        parts.append(layer.slots.reason)
    if winner.recipe is not None:
        parts += _counted_on(layer, winner.recipe.requires.aiter)
        if layer.query.router_weight_on_input:
            parts.append(_router_weight(winner.recipe.call))
    parts += notes
    parts.append(winner.rule.because)
    return "; ".join(parts)


def _router_weight(call: Call) -> str:
    """Say how the router's weight gets onto the input of experts."""
    function = call.router_weight.function or call.function
    how = {
        "kernel": f"{function} is called, which multiplies it in stage 1",
        "caller": "the engine multiplies the hidden states and passes ones",
        "dropped": f"the engine calls {function} without a word of it",
        "refused": "the engine raises",
    }[call.router_weight.by]
    return f"the router's weight goes on the experts' input: {how}"


def _counted_on(layer: MoELayer, needed: Sequence[str]) -> Iterator[str]:
    """Yield how AITER's features are known, and the release that counts."""
    query = layer.requested
    aiter = f"AITER {query.aiter}" if query.aiter else "AITER"
    probed = [name for name in needed if name in query.aiter_features]
    others = [name for name in needed if name not in query.aiter_features]
    if probed:
        yield f"{aiter} has {', '.join(probed)} (probed)"
    if others and query.aiter:
        yield f"{aiter} has {', '.join(others)} (by version)"
    if layer.query.aiter != query.aiter:
        yield f"by what was probed it is taken as {layer.query.aiter}"

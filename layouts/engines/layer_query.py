"""Query of an engine's live layer, read as the book says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from preshuffle.layouts.engines.expert_maps import map_fields
from preshuffle.layouts.engines.live_values import LiveObject, class_names, plain
from preshuffle.layouts.loader import RoleTensors, Target
from preshuffle.registry import LayoutError, Query, QueryError, Registry
from preshuffle.registry.base.errors import FieldProblem
from preshuffle.registry.base.frozen import FrozenDict
from preshuffle.registry.base.versions import version_key
from preshuffle.registry.entries import EngineLayerEntry, MethodFacts

_UNSET: Final = ("auto",)
"""Values of options that say that the engine chooses."""


@dataclass(frozen=True, slots=True)
class LayerQuery:
    """What a live layer asks the registry.

    Attributes:
        query: the layer's, with its engine, GPU and switches as they were given.
        tp_rank: the layer's place among the ranks that cut an expert; None where it does not say.
        ep_rank: its place among those that share the experts.
        function: signature of the function that the layer calls.
        expert_map: what the layer's own expert maps say, as fields of ``Applied``; empty where it has none.
        entry: id of the book's entry by which it was read; None for a layer of no known class.
        unset_pads: whether its engine leaves in the pads of buffers what memory held, until it converts them.
    """

    query: Query
    tp_rank: int | None
    ep_rank: int | None
    function: str
    expert_map: Mapping[str, Any]
    entry: str | None
    unset_pads: bool = False


def query_of_layer(
    layer: Target,
    *,
    engine: str | None = None,
    model: str | None = None,
    config: object = None,
    registry: Registry | None = None,
    **fields: Any,
) -> LayerQuery:
    """Build the query of an engine's live layer.

    Nothing of the engine is imported: attributes are read by the names that the book has. What a layer does not say is
    left to the model's entry; what is passed here counts before both.

    Args:
        layer: a module of the engine's, or a dict of tensors (then nothing but the number of experts is read).
        engine: ``vllm``, or with its version ``vllm@0.33.0``; None for a layer of no engine.
        model: a Hugging Face id or a name of your own; else the engine's configuration says it.
        config: the engine's own configuration object.
        registry: whose book is meant; the packaged one by default.
        fields: of the query, such as those of ``observe_here``.

    Raises:
        LayoutError: the book knows the engine, and no layer of this class.
        QueryError: neither ``model`` nor ``config`` names the model, or a field is wrong.
    """
    registry = registry or Registry.default()
    entry = _entry(layer, engine, registry) if engine is not None else None
    live = LiveObject(layer)
    if entry is not None:
        live = LiveObject(layer, live.first(entry.method.paths), config)
    facts = _facts(entry, live) if entry is not None else {}
    facts |= _experts(layer, facts.get("ep") or 1)
    about = LiveObject(config)
    named = model or (_model(entry, about) if entry is not None else None)
    if named is None:
        raise QueryError([FieldProblem("model", "neither model= nor the engine's configuration names the model")])
    options = _options(entry, live) if entry is not None else {}
    env = {**options, **fields.pop("env", {})}
    stated = {**facts, **{name: value for name, value in fields.items() if value is not None}}
    if engine is not None:
        stated["engine"] = engine
    if env:
        stated["env"] = env
    places = entry.ranks if entry is not None else {}
    ranks = {name: live.fact(fact) for name, fact in places.items()}
    return LayerQuery(
        query=_query(named, stated, about, entry, registry),
        tp_rank=ranks.get("tp_rank"),
        ep_rank=ranks.get("ep_rank"),
        function=_function(entry, live) if entry is not None else "aiter.fused_moe",
        expert_map=FrozenDict(_map(entry, live)) if entry is not None else {},
        entry=entry.id if entry is not None else None,
        unset_pads=entry is not None and _has_unset_pads(entry, live),
    )


def _entry(layer: Target, engine: str, registry: Registry) -> EngineLayerEntry | None:
    """Return the entry of a layer's class; None where the book has no layers of the engine, or there is no module."""
    name, _, version = engine.partition("@")
    entries: Iterable[EngineLayerEntry] = registry.book.entries["engine_layers"].values()
    known = [entry for entry in entries if entry.engine == name]
    if not known or not isinstance(layer, torch.nn.Module):
        return None
    names = class_names(layer)
    fitting = [entry for entry in known if names & set(entry.classes)]
    if not fitting:
        classes = ", ".join(dict.fromkeys(name for entry in known for name in entry.classes))
        raise LayoutError(f"the book knows no {type(layer).__name__} among the layers of {name}; valid: {classes}")
    if not version:
        return fitting[-1]
    dated = [entry for entry in fitting if entry.since is None or version_key(entry.since) <= version_key(version)]
    return (dated or fitting[:1])[-1]


def _facts(entry: EngineLayerEntry, live: LiveObject) -> dict[str, Any]:
    """Return the query's fields that a layer and its method keep; the method counts first."""
    found: dict[str, Any] = {}
    for method in _methods(entry, live):
        read = {name: live.fact(fact) for name, fact in method.read.items()}
        for name, value in {**method.fields, **read}.items():
            if value is not None:
                found.setdefault(name, value)
    for name, fact in entry.fields.items():
        value = live.fact(fact)
        if value is not None:
            found.setdefault(name, value)
    return found


def _has_unset_pads(entry: EngineLayerEntry, live: LiveObject) -> bool:
    known = entry.conversion.unset_pads if entry.conversion is not None else ()
    return bool(class_names(live.method) & set(known))


def _methods(entry: EngineLayerEntry, live: LiveObject) -> list[MethodFacts]:
    names = class_names(live.method)
    return [one for one in entry.methods if names & set(one.classes) and _holds(one, live)]


def _holds(method: MethodFacts, live: LiveObject) -> bool:
    for path, wanted in method.when.items():
        allowed = wanted if isinstance(wanted, tuple) else (wanted,)
        if plain(live.raw(path)) not in allowed:
            return False
    return True


def _experts(layer: Target, ep: int) -> dict[str, int]:
    """Return the experts of all ranks, counted in one rank's tensors."""
    tensors = RoleTensors(layer)
    weights = [tensors[role] for role in ("w13_weight", "w2_weight") if role in tensors.names]
    shapes = [tensor.shape for tensor in weights if tensor.dim() == 3]
    return {"num_experts": int(shapes[0][0]) * ep} if shapes else {}


def _model(entry: EngineLayerEntry, config: LiveObject) -> str | None:
    fact = entry.config.get("model")
    value = config.fact(fact) if fact is not None else None
    return value if isinstance(value, str) and value else None


def _query(
    model: str, stated: Mapping[str, Any], config: LiveObject, entry: EngineLayerEntry | None, registry: Registry
) -> Query:
    """Return the query; of a model that no entry knows, the engine's copy of ``config.json`` says the rest."""
    fact = entry.config.get("hf_config") if entry is not None else None
    hf_config = config.first(fact.paths) if fact is not None else None
    to_dict = getattr(hf_config, "to_dict", None)
    if to_dict is not None and registry.book.model_names.find(model) is None:
        return registry.query_from_hf_config(to_dict(), model=model, **stated)
    return Query.parse({"model": model, **stated})


def _options(entry: EngineLayerEntry, live: LiveObject) -> dict[str, str]:
    found = {name: live.fact(fact) for name, fact in entry.options.items()}
    return {name: str(value) for name, value in found.items() if value is not None and value not in _UNSET}


def _function(entry: EngineLayerEntry, live: LiveObject) -> str:
    return next((one.function for one in _methods(entry, live) if one.function is not None), entry.function)


def _map(entry: EngineLayerEntry, live: LiveObject) -> Mapping[str, Any]:
    """Return what the layer's mask says or, where it has none, its map of indices."""
    for kind in ("mask", "index"):
        fact = entry.maps.get(kind)
        value = live.first(fact.paths) if fact is not None else None
        if isinstance(value, torch.Tensor):
            return {**map_fields(value), "expert_map": kind}
    return {}

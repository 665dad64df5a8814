"""Completion of a query and an observation into a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preshuffle.registry.base.memo import Memo
from preshuffle.registry.base.words import Role
from preshuffle.registry.entries import ArchEntry, ModelEntry
from preshuffle.registry.layer.expert_slots import counted_fields, expert_slots, shared_experts_of
from preshuffle.registry.layer.features import behaves_as, unknown_features
from preshuffle.registry.layer.moe_layer import NOTHING, MoELayer
from preshuffle.registry.layer.switches import read_switches
from preshuffle.registry.layer.tensors import ObservedTensor, observed_tensors, weight_dtype_of
from preshuffle.registry.loading import Book
from preshuffle.registry.values.observation import Applied
from preshuffle.registry.values.query import Query

_RANKS = {"tp", "ep", "dp"}


def layer_of(
    query: Query, book: Book, memo: Memo | None = None, applied: Applied = NOTHING, *, supposed: bool = False
) -> MoELayer:
    """Complete a query and what was observed, from a book.

    Nothing is raised: what the query gets wrong stands in ``problems`` (``MoELayer.checked``).

    Args:
        query: as it was requested, or as an observation states it.
        book: where the facts of its model, GPU, engine and switches come from.
        memo: stores what other queries share; None stores nothing.
        applied: what was observed.
        supposed: whether nobody stated the query's AITER.
    """
    arch, query = book.arch_names.complete(query)
    tensors = observed_tensors(applied, book) if applied.tensors else {}
    return _complete(query, book, memo or Memo(), arch, applied, tensors, supposed)


def supposing(layer: MoELayer, version: str) -> MoELayer:
    """Return a layer as it is under another supposed AITER."""
    query = layer.requested.altered(aiter=version)
    return _complete(query, layer.book, layer.memo, layer.arch, layer.applied, layer.tensors, supposed=True)


def _complete(
    query: Query,
    book: Book,
    memo: Memo,
    arch: ArchEntry | None,
    applied: Applied,
    tensors: Mapping[Role, ObservedTensor],
    supposed: bool,
) -> MoELayer:
    problems = unknown_features(book, query.aiter_features) if query.aiter_features else ()
    model = book.model_names.find(query.model)
    full = _completed(query, model, arch, applied, book)
    build = behaves_as(book, query.aiter, query.aiter_features) if query.aiter_features else query.aiter
    if build != query.aiter:
        full = full.altered(aiter=build)
    switches = read_switches(full, book, memo)
    given = query.num_experts is not None or query.top_k is not None
    observed = None if applied is NOTHING else frozenset(query.model_fields_set & _RANKS)
    shared = memo.get("shared experts", model.id, lambda: shared_experts_of(model)) if model else None
    slots = expert_slots(full, shared, switches, book, memo, given=given, observed=observed)
    if counted := counted_fields(full, slots):
        full = full.altered(**counted)
    return MoELayer(
        book,
        memo,
        query,
        full,
        arch,
        model,
        switches,
        slots,
        (full.ep > 1 or applied.expert_map == "mask") and slots.masked_column is not False,
        applied,
        tensors,
        (*problems, *switches.problems),
        supposed,
    )


def keeps_experts_whole(query: Query, book: Book) -> bool:
    """Return whether the engine's expert parallelism cuts no expert."""
    entry = book.engines.get(query.engine.name) if query.engine is not None else None
    return entry is not None and entry.launch is not None and not entry.launch.ep_takes_size


def _completed(query: Query, model: ModelEntry | None, arch: ArchEntry | None, applied: Applied, book: Book) -> Query:
    """Fill in what a query leaves out.

    As it was loaded, else from the entries of its model and its GPU. Where an engine's expert-parallel ranks hold whole
    experts, ``tp`` beside ``ep`` counts as 1.
    """
    stated = query.__dict__
    missing: dict[str, Any] = {}
    if model is not None:
        missing = {name: value for name, value in model.given().items() if stated[name] is None}
        if model.gated is False and "gated" not in query.model_fields_set:
            missing["gated"] = False
        missing["model"] = model.id
    if query.cu_num is None and arch is not None and arch.default_cu_num is not None:
        missing["cu_num"] = arch.default_cu_num  # all of its products have as many
    if query.tp > 1 and query.ep > 1 and keeps_experts_whole(query, book):
        missing["tp"] = 1
    loaded = weight_dtype_of(applied) if applied.tensors and query.weight_dtype is None else None
    if loaded is not None:  # what was loaded says more than the model's entry
        missing["weight_dtype"] = loaded
    return query.altered(**missing) if missing else query

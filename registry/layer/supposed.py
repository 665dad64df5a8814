"""AITER versions that a layer may run on where none is stated."""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.base.memo import Memo
from preshuffle.registry.base.versions import version_key
from preshuffle.registry.kernels import dispatch_book
from preshuffle.registry.layer.complete import layer_of, supposing
from preshuffle.registry.layer.engines import aiter_of
from preshuffle.registry.layer.moe_layer import NOTHING, MoELayer
from preshuffle.registry.loading import Book
from preshuffle.registry.values.observation import Applied
from preshuffle.registry.values.query import Query


def supposed_layers(query: Query, book: Book, memo: Memo, applied: Applied = NOTHING) -> Iterator[MoELayer]:
    """Yield a layer under each AITER that it may run on.

    A stated version is the only one. Else it may be any at which the book knows a change: the most plausible comes
    first, then the oldest to the newest. A release of an engine runs no older AITER than the one it is written for.

    Args:
        query: as for ``layer_of``, like all others.
    """
    if query.aiter is not None or query.aiter_features:
        layer = layer_of(query, book, memo, applied)
        if layer.query.aiter is not None:
            yield layer
            return
    pin = aiter_of(book, query.engine) if query.engine is not None else None
    first, *others = memo.get("supposed AITER versions", pin, lambda: _versions_since(book, pin))
    layer = layer_of(query.altered(aiter=first), book, memo, applied, supposed=True)
    yield layer
    yield from (supposing(layer, version) for version in others)


def _versions_since(book: Book, pin: str | None) -> tuple[str, ...]:
    """Return versions no older than an engine's pin: its own or the newest release first, then oldest to newest."""
    dispatch = dispatch_book()
    features = (feature.since for feature in book.features.values())
    known = {dispatch.newest, *features, *(entry.since for entry in dispatch.timeline)}
    oldest = version_key(pin or dispatch.oldest_supposed)
    first = pin or dispatch.newest
    versions = sorted((version for version in known if version_key(version) >= oldest), key=version_key)
    return (first, *(version for version in versions if version_key(version) != version_key(first)))

"""Rules on storage: addresses, caches, strides and slices of tensors.

Codes: stale_address, stale_cache, non_contiguous, expert_view.
"""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.base.versions import InvalidVersionError, version_identity
from preshuffle.registry.check.deployment.evidence import Evidence
from preshuffle.registry.layer import SCALES, ObservedTensor
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.observation import CacheKey

_INPUT_SCALES = ("w13_input_scale", "w2_input_scale")


def stale_address(evidence: Evidence) -> Iterator[Finding]:
    """Yield tensors that moved after graphs captured their address."""
    if not evidence.layer.applied.graphs:
        return
    for role, tensor in evidence.layer.tensors.items():
        if tensor.observation.address_changed:
            yield Finding.of(
                "stale_address",
                "the storage moved while graphs hold its old address: replays read freed or old memory",
                role=role,
                expected="the same data_ptr",
                actual="address_changed",
                fix="write in place (copy_ into the same storage), or capture the graphs again",
            )


def stale_cache(evidence: Evidence) -> Iterator[Finding]:
    """Yield differences between a weight cache's key and the deployment."""
    cache = evidence.layer.applied.cache
    if cache is None:
        return
    for name, made, needed in _differences(evidence, cache):
        yield Finding.of(
            "stale_cache",
            f"the cache was made for {name} {made}; this deployment has {needed}",
            expected=f"{name} {needed}",
            actual=f"{name} {made}",
            fix="delete the cache and lay the weights out again; key it by recipe, AITER, arch, tp and ep",
        )


def _differences(evidence: Evidence, cache: CacheKey) -> Iterator[tuple[str, str, str]]:
    layer = evidence.layer
    query, stated, aiter = layer.query, layer.stated, None if layer.supposed else layer.requested.aiter
    if cache.arch is not None and layer.book.arch_names.gfx(cache.arch) != query.arch:
        yield "arch", cache.arch, query.arch
    for name in ("tp", "ep"):
        made = getattr(cache, name)
        if made is not None and name in stated and made != getattr(query, name):
            yield name, str(made), str(getattr(query, name))
    if cache.aiter is not None and aiter is not None and _identity(cache.aiter) != _identity(aiter):
        yield "AITER", cache.aiter, aiter
    other = evidence.cached_recipe
    w13 = evidence.layer.tensors.get("w13_weight")
    if other is not None and w13 is not None and w13.layout is not None and other[1] != w13.layout.id:
        yield "recipe", f"{other[0]} (w13 {other[1]})", f"w13 {w13.layout.id}"


def _identity(version: str) -> object:
    try:
        return version_identity(version)
    except InvalidVersionError:
        return version


def non_contiguous(evidence: Evidence) -> Iterator[Finding]:
    """Yield strided tensors where a kernel reads dense memory."""
    if not any(_dense(evidence, run.reader, run.backend) for run in evidence.runs):
        return
    for role, tensor in evidence.layer.tensors.items():
        if not tensor.observation.contiguous and role not in _INPUT_SCALES:
            yield Finding.of(
                "non_contiguous",
                "the tensor is strided; the kernel reads dense memory from its first byte",
                role=role,
                expected="a contiguous tensor",
                actual="strided",
                fix="make it contiguous before it is laid out (and tag the copy), or give the kernel the dense storage",
            )


def _dense(evidence: Evidence, reader: str, backend: str) -> bool:
    entry = evidence.backends.find(backend)
    if reader == "unknown":
        return False
    return reader == "aiter" or (entry is not None and entry.dense)


def expert_view(evidence: Evidence) -> Iterator[Finding]:
    """Yield tensors that cannot be moved expert by expert."""
    applied = evidence.layer.applied
    if not applied.eplb and "migrate" not in applied.events:
        return
    for role, tensor in evidence.layer.tensors.items():
        reason = _not_a_slice(evidence, tensor)
        if reason:
            yield Finding.of(
                "expert_view",
                f"experts are moved one by one, but {reason}",
                role=role,
                expected="each expert one dense slice",
                actual=tensor.layout.id if tensor.layout else "strided",
                fix="pad the rows of each expert to whole tiles before the layout is applied, keep the tensor dense, "
                "or switch expert load balancing off",
            )


def _not_a_slice(evidence: Evidence, tensor: ObservedTensor) -> str | None:
    if not tensor.observation.contiguous:
        return "this tensor is a strided view: a slice of it is not what the kernel reads"
    if tensor.role not in SCALES or not tensor.laid_out or tensor.layout is None:
        return None
    tile = tensor.layout.pattern.row_tile
    flat = _flat_tail(evidence, tensor)
    if flat:
        return flat
    rows = _rows_per_expert(evidence, tensor)
    if rows is not None and rows % tile:
        return f"its {rows} rows per expert are not whole tiles of {tile}: one tile holds rows of two experts"
    return None


def _flat_tail(evidence: Evidence, tensor: ObservedTensor) -> str | None:
    weight, physical = evidence.layer.tensors.get(SCALES[tensor.role]), tensor.observation.physical_shape
    shape = weight.observation.physical_shape if weight else None
    if physical is None or len(physical) != 2 or shape is None or len(shape) != 3 or evidence.layer.group != 32:
        return None
    if physical[0] != shape[0] * shape[1]:
        return f"it is flattened to {physical[0]} rows, padded at its tail: {shape[0]} experts do not divide it"
    return None


def _rows_per_expert(evidence: Evidence, tensor: ObservedTensor) -> int | None:
    shape = evidence.layer.counted_shape(tensor, tensor.layout) if tensor.layout else None
    if shape is not None:
        return shape[1]
    weight = evidence.layer.tensors.get(SCALES[tensor.role])
    for known in (weight.observation.physical_shape if weight else None, tensor.observation.logical_shape):
        if known is not None and len(known) == 3:
            return known[1]
    return None

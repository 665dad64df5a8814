"""stale_address, stale_cache, non_contiguous, expert_view: where the bytes lie, not in which order."""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.base.versions import InvalidVersionError, version_identity
from preshuffle.registry.check.deployment.evidence import Look
from preshuffle.registry.check.deployment.observed_layer import SCALES, Seen, units
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.observation import CacheKey

_INPUT_SCALES = ("w13_input_scale", "w2_input_scale")


def stale_address(look: Look) -> Iterator[Finding]:
    """A captured graph keeps reading the address that a tensor had when it was captured."""
    if not look.scene.applied.graphs:
        return
    for role, seen in look.scene.tensors.items():
        if seen.what.address_changed:
            yield Finding.of(
                "stale_address",
                "the storage moved while graphs hold its old address: replays read freed or old memory",
                role=role,
                expected="the same data_ptr",
                actual="address_changed",
                fix="write in place (copy_ into the same storage), or capture the graphs again",
            )


def stale_cache(look: Look) -> Iterator[Finding]:
    """Laid-out bytes from a cache are right only for the recipe, AITER, GPU and sharding that they were made for."""
    cache = look.scene.applied.cache
    if cache is None:
        return
    for name, made, needed in _differences(look, cache):
        yield Finding.of(
            "stale_cache",
            f"the cache was made for {name} {made}; this deployment has {needed}",
            expected=f"{name} {needed}",
            actual=f"{name} {made}",
            fix="delete the cache and lay the weights out again; key it by recipe, AITER, arch, tp and ep",
        )


def _differences(look: Look, cache: CacheKey) -> Iterator[tuple[str, str, str]]:
    query, stated, aiter = look.scene.query, look.scene.stated, look.scene.aiter
    if cache.arch is not None and cache.arch != query.arch:
        yield "arch", cache.arch, query.arch
    for name in ("tp", "ep"):
        made = getattr(cache, name)
        if made is not None and name in stated and made != getattr(query, name):
            yield name, str(made), str(getattr(query, name))
    if cache.aiter is not None and aiter is not None and _identity(cache.aiter) != _identity(aiter):
        yield "AITER", cache.aiter, aiter
    other = look.extra.get("recipe_of_cache")
    w13 = look.scene.tensors.get("w13_weight")
    if other is not None and w13 is not None and w13.layout is not None and other[1] != w13.layout.id:
        yield "recipe", f"{other[0]} (w13 {other[1]})", f"w13 {w13.layout.id}"


def _identity(version: str) -> object:
    try:
        return version_identity(version)
    except InvalidVersionError:
        return version


def non_contiguous(look: Look) -> Iterator[Finding]:
    """Kernels take a pointer and count on dense memory; strides are not passed."""
    if not any(_dense(look, run.reader, run.backend) for run in look.runs):
        return
    for role, seen in look.scene.tensors.items():
        if not seen.what.contiguous and role not in _INPUT_SCALES:
            yield Finding.of(
                "non_contiguous",
                "the tensor is strided; the kernel reads dense memory from its first byte",
                role=role,
                expected="a contiguous tensor",
                actual="strided",
                fix="make it contiguous before it is laid out (and tag the copy), or give the kernel the dense storage",
            )


def _dense(look: Look, reader: str, backend: str) -> bool:
    entry = look.backends.find(backend)
    if reader == "unknown":
        return False
    return reader == "aiter" or (entry is not None and entry.dense)


def expert_view(look: Look) -> Iterator[Finding]:
    """Moving experts one by one needs every expert to be one slice of the tensor."""
    applied = look.scene.applied
    if not applied.eplb and "migrate" not in applied.events:
        return
    for role, seen in look.scene.tensors.items():
        reason = _not_a_slice(look, seen)
        if reason:
            yield Finding.of(
                "expert_view",
                f"experts are moved one by one, but {reason}",
                role=role,
                expected="each expert one dense slice",
                actual=seen.layout.id if seen.layout else "strided",
                fix="pad the rows of each expert to whole tiles before the layout is applied, keep the tensor dense, "
                "or switch expert load balancing off",
            )


def _not_a_slice(look: Look, seen: Seen) -> str | None:
    if not seen.what.contiguous:
        return "this tensor is a strided view: a slice of it is not what the kernel reads"
    if seen.role not in SCALES or not seen.laid_out or seen.layout is None:
        return None
    tile = seen.layout.pattern.row_tile
    flat = _flat_tail(look, seen)
    if flat:
        return flat
    rows = _rows_per_expert(look, seen)
    if rows is not None and rows % tile:
        return f"its {rows} rows per expert are not whole tiles of {tile}: one tile holds rows of two experts"
    return None


def _flat_tail(look: Look, seen: Seen) -> str | None:
    weight, physical = look.scene.tensors.get(SCALES[seen.role]), seen.what.physical_shape
    shape = weight.what.physical_shape if weight else None
    if physical is None or len(physical) != 2 or shape is None or len(shape) != 3 or look.scene.group != 32:
        return None
    if physical[0] != shape[0] * shape[1]:
        return f"it is flattened to {physical[0]} rows, padded at its tail: {shape[0]} experts do not divide it"
    return None


def _rows_per_expert(look: Look, seen: Seen) -> int | None:
    shape = units(look.scene, seen, seen.layout) if seen.layout else None
    if shape is not None:
        return shape[1]
    weight = look.scene.tensors.get(SCALES[seen.role])
    for known in (weight.what.physical_shape if weight else None, seen.what.logical_shape):
        if known is not None and len(known) == 3:
            return known[1]
    return None

"""Rules on loading: what was read from the checkpoint.

Codes: source_order_mismatch, load_coverage.
"""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.base.errors import QueryError
from preshuffle.registry.base.ranges import ranges_text
from preshuffle.registry.base.versions import version_key
from preshuffle.registry.check.deployment.evidence import Evidence
from preshuffle.registry.layer import MoELayer, ObservedTensor
from preshuffle.registry.resolve import LoaderCut, loader_cut
from preshuffle.registry.values.finding import Finding


def source_order_mismatch(evidence: Evidence) -> Iterator[Finding]:
    """Yield a wrong assumption about the checkpoint's gate and up order."""
    assumed, actual = evidence.layer.applied.source_order, evidence.layer.query.gate_up_order
    if assumed is not None and actual is not None and assumed != actual:
        yield Finding.of(
            "source_order_mismatch",
            f"the loader took the checkpoint's w13 rows for {assumed}; they are {actual}",
            role="w13_weight",
            expected=actual,
            actual=assumed,
            fix=f"load w13 (weight, scale and bias) as {actual}: skip or add the de-interleave step",
        )


def load_coverage(evidence: Evidence) -> Iterator[Finding]:
    """Yield tensors whose ranks miss checkpoint rows or repeat some.

    The ranks together must hold every row exactly once. A rank without rows is right where whole blocks are cut and
    the others hold all of them.
    """
    for tensor in evidence.layer.tensors.values():
        loaded = tensor.observation.rows_loaded
        reason = _wrong_rows(evidence.layer, tensor, loaded) if loaded else None
        if reason:
            yield _finding(tensor, reason)
        elif loaded:
            yield from _cut_otherwise(evidence.layer, tensor, loaded)
    yield from _unloaded(evidence.layer)


def _unloaded(layer: MoELayer) -> Iterator[Finding]:
    """Yield tensors with an empty slot that the router can choose."""
    for tensor in layer.tensors.values():
        missing = unloaded_slots(layer, tensor)
        if missing:
            slots = ranges_text(missing)
            yield Finding.of(
                "load_coverage",
                f"{tensor.role}: nothing was loaded into expert slot {slots}, which the router can choose",
                role=tensor.role,
                expected="every slot that the router can choose",
                actual=f"not slot {slots}",
                fix="load these experts, or keep the router from choosing them (a mask of 0)",
            )


def unloaded_slots(layer: MoELayer, tensor: ObservedTensor) -> tuple[int, ...]:
    """Return the slots without values that the router can choose.

    It can choose a rank's share of the experts. Slots behind it (padding, a last expert that no id means) are not known
    to be chosen; where the observation names the dummies, all others are.
    """
    loaded, dummies = tensor.observation.slots_loaded, layer.applied.dummy_slots
    if loaded is None:
        return ()
    shape = tensor.observation.logical_shape
    local = shape[0] if shape else layer.local_experts
    total = layer.query.num_experts
    share = total // layer.query.ep if total is not None and ("ep" in layer.stated or local == total) else None
    if local is None or (share is None and not dummies):
        return ()
    chosen = local if dummies or share is None else min(local, share)
    return tuple(slot for slot in range(chosen) if slot not in {*loaded, *dummies})


def _finding(tensor: ObservedTensor, message: str) -> Finding:
    return Finding.of(
        "load_coverage",
        message,
        role=tensor.role,
        expected="every real row on exactly one rank",
        actual=str(list(tensor.observation.rows_loaded or ())),
        fix="slice the checkpoint by its own size per rank, not by the padded one",
    )


def _cut_otherwise(layer: MoELayer, tensor: ObservedTensor, loaded: tuple[int, ...]) -> Iterator[Finding]:
    """Yield ranks that loaded other rows than the loader's way of cutting gives them, although none is missing.

    The buffers, scales and pads of a rank are of the size that it is cut by. What an engine's rule says counts for the
    releases that it was read in, and only where the engine's release is known.
    """
    total = _rows_in_all(layer, tensor)
    if not tensor.role.startswith("w13") or layer.query.tp != len(loaded) or "tp" not in layer.stated or not total:
        return
    cut = loader_cut(layer)
    if layer.query.shard is None and not _is_read(layer, cut):
        return
    try:
        wanted = tuple(piece.size * layer.halves for piece in cut.shards(layer.query).pieces)
    except QueryError:
        return
    if wanted == loaded:
        return
    rank = next(number for number, rows in enumerate(loaded) if rows != wanted[number])
    who = f"the engine's loader (rule {cut.rule})" if cut.rule else f"shard {cut.shard}"
    yield Finding.of(
        "load_coverage",
        f"{tensor.role}: rank {rank} loaded {loaded[rank]} rows; {who} gives it {wanted[rank]}",
        role=tensor.role,
        expected=str(list(wanted)),
        actual=str(list(loaded)),
        fix="load each rank's rows as its buffer is cut, or state as shard how the loader really cuts",
    )


def _is_read(layer: MoELayer, cut: LoaderCut) -> bool:
    """Return whether a rule says how the layer's engine cuts, of a release that was read."""
    engine = layer.query.engine
    if cut.rule is None or engine is None or engine.version is None:
        return False
    since = layer.book.rules[cut.rule].engine_since
    return since is None or version_key(engine.version) >= version_key(since)


def _wrong_rows(layer: MoELayer, tensor: ObservedTensor, loaded: tuple[int, ...]) -> str | None:
    total = _rows_in_all(layer, tensor)
    if total is None:
        return None
    tp, ep = (getattr(layer.query, name) if name in layer.stated else None for name in ("tp", "ep"))
    sharded = tensor.role.startswith("w13") and tp == len(loaded)
    if sharded and sum(loaded) < total:
        return f"the ranks loaded {sum(loaded)} rows in all; the checkpoint has {total}"
    if sharded and sum(loaded) > total:
        return f"the ranks loaded {sum(loaded)} rows in all; the checkpoint has {total}: some are on two ranks"
    whole = tensor.role.startswith("w2") or (tp in (None, 1) and ep == len(loaded))
    short = [rank for rank, rows in enumerate(loaded) if rows < total]
    if whole and not sharded and short and tensor.role != "w2_bias":
        return f"rank {', '.join(map(str, short))} loaded fewer than the {total} rows that every rank holds"
    return None


def _rows_in_all(layer: MoELayer, tensor: ObservedTensor) -> int | None:
    """Return the checkpoint's rows, gate and up together, if known."""
    if tensor.role.endswith("_scale") and layer.query.quant_type != "per_1x32":
        return None
    if tensor.role.startswith("w2"):
        return layer.hidden()
    inter = layer.query.intermediate_size
    return inter * layer.halves if inter else None

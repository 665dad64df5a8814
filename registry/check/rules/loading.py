"""source_order_mismatch, load_coverage: what the loader read from the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.check.deployment.evidence import Look
from preshuffle.registry.check.deployment.observed_layer import Scene, Seen
from preshuffle.registry.values.finding import Finding


def source_order_mismatch(look: Look) -> Iterator[Finding]:
    """De-interleaving rows that were apart already (or the reverse) scrambles gate and up, silently."""
    assumed, actual = look.scene.applied.source_order, look.scene.query.gate_up_order
    if assumed is not None and actual is not None and assumed != actual:
        yield Finding.of(
            "source_order_mismatch",
            f"the loader took the checkpoint's w13 rows for {assumed}; they are {actual}",
            role="w13_weight",
            expected=actual,
            actual=assumed,
            fix=f"load w13 (weight, scale and bias) as {actual}: skip or add the de-interleave step",
        )


def load_coverage(look: Look) -> Iterator[Finding]:
    """Each rank must load real rows, and together the ranks must load all of the checkpoint's."""
    for seen in look.scene.tensors.values():
        loaded = seen.what.rows_loaded
        if not loaded:
            continue
        empty = [rank for rank, rows in enumerate(loaded) if rows == 0]
        if empty and seen.role != "w2_bias":
            yield _finding(seen, f"rank {', '.join(map(str, empty))} loaded no rows: it computes on padding alone")
            continue
        reason = _too_few(look.scene, seen, loaded)
        if reason:
            yield _finding(seen, reason)


def _finding(seen: Seen, message: str) -> Finding:
    return Finding.of(
        "load_coverage",
        message,
        role=seen.role,
        expected="every real row on some rank",
        actual=str(list(seen.what.rows_loaded or ())),
        fix="slice the checkpoint by its own size per rank, not by the padded one",
    )


def _too_few(scene: Scene, seen: Seen, loaded: tuple[int, ...]) -> str | None:
    total = _rows_in_all(scene, seen)
    if total is None:
        return None
    tp, ep = (getattr(scene.query, name) if name in scene.stated else None for name in ("tp", "ep"))
    sharded = seen.role.startswith("w13") and tp == len(loaded)
    if sharded and sum(loaded) < total:
        return f"the ranks loaded {sum(loaded)} rows in all; the checkpoint has {total}"
    whole = seen.role.startswith("w2") or (tp in (None, 1) and ep == len(loaded))
    short = [rank for rank, rows in enumerate(loaded) if rows < total]
    if whole and not sharded and short and seen.role != "w2_bias":
        return f"rank {', '.join(map(str, short))} loaded fewer than the {total} rows that every rank holds"
    return None


def _rows_in_all(scene: Scene, seen: Seen) -> int | None:
    """Rows of the whole checkpoint tensor, gate and up together; None where it is not known."""
    if seen.role.endswith("_scale") and scene.query.quant_type != "per_1x32":
        return None
    if seen.role.startswith("w2"):
        return scene.hidden()
    inter = scene.query.intermediate_size
    return inter * scene.halves if inter else None

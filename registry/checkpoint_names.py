"""Which tensors of a checkpoint hold a layer's experts, from its configuration and the book."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preshuffle.registry.books import Book
from preshuffle.registry.model_types import CheckpointTensor, ModelTypeEntry, QuantizationCase, StoredTensor
from preshuffle.registry.quantization import experts_of
from preshuffle.registry.words import Role

Tensors = Mapping[Role, CheckpointTensor]


def checkpoint_tensors(config: Mapping[str, Any], entry: ModelTypeEntry, book: Book, layer: int) -> tuple[Tensors, ...]:
    """Return the tensors of one layer's experts, by role; several where wrappers give them several names.

    Args:
        config: the language model's configuration.
        entry: how its model type names things.
        book: whose quantization methods count.
        layer: whose experts.

    Returns:
        Ways to find them, the likeliest first; none where the book does not know how they are stored.

    Raises:
        QueryError: the quantization is not known.
    """
    found = experts_of(config, entry, book, layer)
    stored = entry.checkpoint.get(found.method)
    ways = () if entry.experts is None else tuple(_linear(entry, path, found.case) for path in entry.experts.paths)
    return (*((stored,) if stored else ()), *(way for way in ways if way))


def _linear(entry: ModelTypeEntry, path: str, case: QuantizationCase) -> Tensors:
    """Single experts' linear layers: gate's and up's rows make w13, down's are w2."""
    experts = entry.experts
    if experts is None or case.weight is None or "{expert}" not in path:
        return {}
    tensors: dict[Role, CheckpointTensor] = {}
    parts: tuple[tuple[StoredTensor | None, Role, Role], ...] = (
        (case.weight, "w13_weight", "w2_weight"),
        (case.scale, "w13_weight_scale", "w2_weight_scale"),
        (case.input_scale, "w13_input_scale", "w2_input_scale"),
    )
    for stored, w13, w2 in parts:
        if stored is not None:
            gate, up, down = (f"{path}.{name}.{stored.name}" for name in (experts.gate, experts.up, experts.down))
            how = {"dtype": stored.dtype, "packed": stored.packed}
            tensors[w13] = CheckpointTensor.model_validate({"name": gate, "up": up, **how})
            tensors[w2] = CheckpointTensor.model_validate({"name": down, **how})
    return tensors

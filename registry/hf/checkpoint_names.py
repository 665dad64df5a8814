"""Names of the tensors that hold a layer's experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preshuffle.registry.base.words import Role
from preshuffle.registry.entries import CheckpointTensor, ExpertModules, ModelTypeEntry, QuantizationCase, StoredTensor
from preshuffle.registry.hf.quantization import experts_of
from preshuffle.registry.loading import Book

Tensors = Mapping[Role, CheckpointTensor]


def checkpoint_tensors(config: Mapping[str, Any], entry: ModelTypeEntry, book: Book, layer: int) -> tuple[Tensors, ...]:
    """Return the tensors of one layer's experts, by role.

    Several ways where wrappers give them several names.

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
    experts = entry.experts
    ways = tuple(_linear(experts, block, found.case) for block in experts.blocks) if experts else ()
    return (*((stored,) if stored else ()), *(way for way in ways if way))


def _linear(experts: ExpertModules, block: str, case: QuantizationCase) -> Tensors:
    """Single experts' linear layers: gate's and up's rows make w13, down's are w2."""
    if case.weight is None or "{expert}" not in experts.expert:
        return {}
    tensors: dict[Role, CheckpointTensor] = {}
    parts: tuple[tuple[StoredTensor | None, Role, Role], ...] = (
        (case.weight, "w13_weight", "w2_weight"),
        (case.scale, "w13_weight_scale", "w2_weight_scale"),
        (case.input_scale, "w13_input_scale", "w2_input_scale"),
    )
    for stored, w13, w2 in parts:
        if stored is None:
            continue
        gate, up, down = (f"{block}.{experts.expert}.{name}.{stored.name}" for name in experts.linears)
        linears = experts.shared_linears or experts.linears
        shared = [f"{block}.{experts.shared}.{name}.{stored.name}" for name in linears if experts.shared]
        how = {"dtype": stored.dtype, "packed": stored.packed}
        tensors[w13] = CheckpointTensor.model_validate({"name": gate, "up": up, "shared": shared[:2], **how})
        tensors[w2] = CheckpointTensor.model_validate({"name": down, "shared": shared[2:], **how})
    return tensors

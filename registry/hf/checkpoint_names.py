"""Names of the tensors that hold a layer's experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preshuffle.registry.base.words import Role
from preshuffle.registry.entries import CheckpointTensor, ExpertModules, ModelTypeEntry, QuantizationCase, StoredTensor
from preshuffle.registry.hf.quantization import ExpertsReader
from preshuffle.registry.loading import Book

Tensors = Mapping[Role, CheckpointTensor]


def checkpoint_tensors(
    config: Mapping[str, Any], entry: ModelTypeEntry, book: Book, layer: int, reader: ExpertsReader | None = None
) -> tuple[Tensors, ...]:
    """Return the tensors of one layer's experts, by role.

    Several sets of names where wrapper models prefix them differently.

    Args:
        config: the language model's configuration.
        entry: how its model type names things.
        book: whose quantization methods count.
        layer: whose experts.
        reader: of the same configuration, where several layers are asked for.

    Returns:
        Sets of names to try, the likeliest first; none where the book does not know how they are stored.

    Raises:
        QueryError: the quantization is not known.
    """
    quantization = (reader or ExpertsReader(config, entry, book)).experts(layer)
    stored = entry.checkpoint.get(quantization.method)
    experts = entry.experts
    by_block = tuple(_linear(experts, block, quantization.case) for block in experts.blocks) if experts else ()
    return (*((stored,) if stored else ()), *(tensors for tensors in by_block if tensors))


def _linear(experts: ExpertModules, block: str, case: QuantizationCase) -> Tensors:
    """Return the tensors of single experts' linear layers: gate and up make w13, down is w2."""
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

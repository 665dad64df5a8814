"""Names of the tensors that hold a layer's experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preshuffle.registry.base.words import Role
from preshuffle.registry.entries import (
    CheckpointTensor,
    ExpertModules,
    FoldedScale,
    ModelTypeEntry,
    QuantizationCase,
    StoredTensor,
)
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
    case = quantization.case
    stored_as = (case.weight, case.scale, case.second_scale, case.input_scale)
    places = range(1 + max(len(one.also) if one else 0 for one in stored_as))
    blocks = experts.blocks if experts else ()
    by_block = tuple(_linear(experts, block, case, place) for block in blocks for place in places if experts)
    return (*((stored,) if stored else ()), *(tensors for tensors in by_block if tensors))


def _linear(experts: ExpertModules, block: str, case: QuantizationCase, place: int) -> Tensors:
    """Return the tensors of single experts' linear layers: gate and up make w13, down is w2.

    Args:
        experts: names of their modules.
        block: the MoE block's module.
        case: how the layers are stored.
        place: which of a stored tensor's names.
    """
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
        tensors[w13], tensors[w2] = _layer_tensors(experts, block, stored, place)
        if stored is case.scale and case.second_scale is not None:
            seconds = _layer_tensors(experts, block, case.second_scale, place)
            for role, second in zip((w13, w2), seconds, strict=True):
                folded = FoldedScale(name=second.name, up=second.up, shared=second.shared, dtype=second.dtype)
                tensors[role] = tensors[role].model_copy(update={"folded": folded})
    return tensors


def _layer_tensors(
    experts: ExpertModules, block: str, stored: StoredTensor, place: int
) -> tuple[CheckpointTensor, CheckpointTensor]:
    """Return one tensor of the experts' linear layers: of gate and up, and of down."""
    suffix = stored.name_at(place)
    gate, up, down = (f"{block}.{experts.expert}.{name}.{suffix}" for name in experts.linears)
    linears = experts.shared_linears or experts.linears
    shared = [f"{block}.{experts.shared}.{name}.{suffix}" for name in linears if experts.shared]
    how = {"dtype": stored.dtype, "packed": stored.packed}
    return (
        CheckpointTensor.model_validate({"name": gate, "up": up, "shared": shared[:2], **how}),
        CheckpointTensor.model_validate({"name": down, "shared": shared[2:], **how}),
    )

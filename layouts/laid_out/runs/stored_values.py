"""Check that a checkpoint stores the values that a recipe lays out.

Nothing here quantizes. Recipes of weights that an engine quantizes while it loads them are refused.
"""

from __future__ import annotations

from typing import Final

from preshuffle.layouts.checkpoint import Checkpoint, CheckpointError
from preshuffle.registry import Decision, Query
from preshuffle.registry.base.words import Role

_KINDS: Final = {"bf16": "float", "fp16": "float", "fp8_e4m3fn": "fp8", "fp8_e4m3fnuz": "fp8"}
"""Dtypes that are one kind of values: an engine casts floats, and e4m3fnuz is a step of laying out."""
_FOLDS: Final = {"fold", "fold_max"}
"""Steps that multiply a scale by the scale of the scale."""
_WEIGHTS: Final[tuple[Role, ...]] = ("w13_weight", "w2_weight")


def check_stored_values(checkpoint: Checkpoint, layer: int, query: Query, decision: Decision) -> None:
    """Check that a decision's weights are quantized as the checkpoint's are.

    What the configuration leaves out is not compared.

    Args:
        checkpoint: says what it stores.
        layer: whose experts.
        query: what is wanted.
        decision: the answer to it.

    Raises:
        CheckpointError: an engine quantizes them while it loads them, or the recipe leaves out a scale that the
            checkpoint has; says what to do instead.
    """
    _check_second_scales(checkpoint, layer, decision)
    stored = checkpoint.registry.query_from_hf_config(checkpoint.config, layer=layer, arch=query.arch)
    dtypes = {decided.dtype for role in _WEIGHTS if (decided := decision.tensors.get(role)) is not None}
    scales = [decided for role, decided in decision.tensors.items() if role.endswith("_weight_scale")]
    made = any(decided.default is not None for decided in scales)  # of other scales by the engine, without a new value
    new_dtype = stored.weight_dtype is not None and any(_kind(one) != _kind(stored.weight_dtype) for one in dtypes)
    new_scales = not made and None not in (stored.quant_type, decision.call.quant_type)
    if not new_dtype and not (new_scales and stored.quant_type != decision.call.quant_type):
        return
    rule = checkpoint.registry.book.rules[decision.rule]
    who = query.engine.name if query.engine else "an engine"
    needed = " or ".join(sorted(dtypes))
    raise CheckpointError(
        f"{checkpoint.folder}: its configuration says weights in {stored.weight_dtype} ({stored.quant_type}), and "
        f"recipe {decision.recipe} takes {needed} ({decision.call.quant_type}): {who} quantizes them while it loads "
        f"them ({rule.because}). That is not supported ahead of time, since nothing here quantizes. Quantize the "
        "checkpoint and lay out that one, for the engine without such a switch; or let the engine load this one itself"
    )


def _check_second_scales(checkpoint: Checkpoint, layer: int, decision: Decision) -> None:
    for role, entry in checkpoint.experts[layer].items():
        decided = decision.tensors.get(role)
        if entry.second is None or decided is None or _FOLDS & {*decided.steps}:
            continue
        name = entry.second.name.format(layer=layer, expert=0)
        raise CheckpointError(
            f"{checkpoint.folder}: {name} is a second scale, and recipe {decision.recipe} has no step "
            f"that multiplies {role} by it: what its kernels give would be wrong. Name the engine that is to run "
            "it: the recipes of engines have that step"
        )


def _kind(dtype: str) -> str:
    return _KINDS.get(dtype, dtype)

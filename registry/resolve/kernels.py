"""Kernels of a decision: AITER's call, and the predicted kernels."""

from __future__ import annotations

from collections.abc import Mapping

from preshuffle.registry.algebra.shard import split_experts
from preshuffle.registry.base.frozen import unvalidated
from preshuffle.registry.base.words import QuantType, Role, TensorDtype
from preshuffle.registry.entries import TABLE, ArchEntry
from preshuffle.registry.kernels import DispatchCall, Families, KernelTables, TokenBucket, survey
from preshuffle.registry.loading import Book
from preshuffle.registry.resolve.case import open_case
from preshuffle.registry.values.decision import CallDecision, KernelBucket, TensorDecision
from preshuffle.registry.values.query import Query

DISPATCHED = "fused_moe"
"""AITER's entry point that chooses kernels itself."""
_PREDICTED = frozenset({DISPATCHED, "asm_moe_tkw1"})
"""Entry points whose kernels can be predicted: ``asm_moe_tkw1`` calls ``fused_moe`` with ``doweight_stage1``."""
REACH = 65536
"""Largest token count of a deployment; kernels are judged up to it."""


def is_predicted(function: str) -> bool:
    """Return whether AITER's dispatch chooses the kernels behind an entry point."""
    return function in _PREDICTED


def dispatch_call(
    query: Query,
    arch: ArchEntry,
    tensors: Mapping[Role, TensorDecision],
    call: CallDecision,
    env: Mapping[str, str],
    tokens: int,
    masked_column: bool,
) -> DispatchCall | None:
    """Return the call as AITER sees it, or None.

    None where the compute units are not known, or another function is called.

    Args:
        query: with the model's facts filled in.
        env: what the recipe sets; the query's own environment goes on top.
        tokens: rows of the batch.
        masked_column: whether the engine appends a column to ``topk_ids``.
    """
    cu_num = query.cu_num or arch.default_cu_num
    if cu_num is None or not is_predicted(call.function):
        return None
    w2 = tensors["w2_weight"]
    expert_parallel = query.ep > 1
    return DispatchCall.model_validate(
        {
            "gfx": query.arch,
            "cu_num": cu_num,
            "tokens": tokens,
            "model_dim": w2.physical_shape[1],
            "inter_dim": w2.physical_shape[2],
            "expert": split_experts(query.num_experts or 1, query.ep)[0].size,
            "topk": (query.top_k or 1) + masked_column,
            "activation": call.activation,
            "weight_dtype": _as_weight(tensors["w13_weight"].dtype, call.quant_type),
            "quant_type": call.quant_type,
            "use_g1u1": query.gated,
            "doweight_stage1": call.doweight_stage1,
            "gate_mode": call.gate_mode if call.gate_mode_passed else "separated",
            "is_shuffled": tensors["w13_weight"].is_shuffled or w2.is_shuffled,
            "ep": expert_parallel,
            "bias": call.bias,
            "hidden_pad": call.hidden_pad,
            "intermediate_pad": call.intermediate_pad,
            "quant_dtype_a": call.quant_dtype_a,
            "env": {**env, **query.env},
            "aiter": query.aiter,
        }
    )


def why_not_predicted(
    query: Query, call: CallDecision, book: Book, field: str = "cu_num"
) -> tuple[str, tuple[str, ...]]:
    """Say why no kernels are predicted, and which fields are missing.

    Either another function is called than AITER's dispatch, or it reads another table than those that are known, or the
    number of compute units is not known.

    Args:
        field: how the caller's user spells the query's ``cu_num``.
    """
    slots = open_case(query, book).slots
    if slots.table != TABLE:
        return f"{slots.reason}; which kernels it names is not known", ()
    if not is_predicted(call.function):
        return f"{call.function} is called, and only kernels of AITER's {DISPATCHED} can be predicted", ()
    arch, query = book.arch_names.complete(query)
    sizes = ", ".join(f"{product} {units}" for product, units in arch.cu_num.items()) if arch else "unknown"
    text = f"{query.arch} comes with different numbers of compute units ({sizes})"
    return f"{text}: name the product as arch, or pass {field}", ("cu_num",)


def _as_weight(dtype: TensorDtype, quant_type: QuantType) -> str:
    """Return a weight's dtype as AITER names it.

    Both kinds of fp8 are one; int4 scaled by row comes eight to a uint32.
    """
    if dtype == "i4x2" and quant_type != "per_1x32":
        return "uint32"
    return "fp8" if dtype.startswith("fp8") else dtype


def predict_kernels(
    query: Query,
    arch: ArchEntry,
    tensors: Mapping[Role, TensorDecision],
    call: CallDecision,
    env: Mapping[str, str],
    tables: KernelTables | None,
    families: Families | None,
    masked_column: bool,
) -> tuple[tuple[KernelBucket, ...], list[TokenBucket]]:
    """Predict the kernels at the query's token counts, and ranges.

    The ranges cover every token count up to ``REACH``.

    Both are empty where ``dispatch_call`` knows no call.
    """
    seen = dispatch_call(query, arch, tensors, call, env, 1, masked_column)
    if seen is None:
        return (), []
    choices, ranges = survey(seen, query.tokens, tables, upto=REACH, families=families)
    if tables is not None and families is not None and not tables.is_tied_to(query.aiter):
        later = families.row_of_later
        if any(later(query.aiter, bucket.choice) is not None for bucket in ranges):  # the rows are another version's
            choices, ranges = survey(seen, query.tokens, None, upto=REACH, families=families)
    buckets = (
        unvalidated(KernelBucket, {"tokens": tokens, **choice.__dict__})
        for tokens, choice in zip(query.tokens, choices, strict=True)
    )
    return tuple(buckets), ranges

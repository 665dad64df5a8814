"""Observation of a deployment that follows a decision exactly."""

from __future__ import annotations

from typing import Any

from preshuffle.registry.resolve import DISPATCHED, is_predicted
from preshuffle.registry.values.decision import Decision
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.query import Query


def observation_of(decision: Decision, query: Query) -> Observation:
    """Return what a deployment reports that follows a decision exactly.

    The recipe's environment is in the query's, and the loader did one ``apply`` and passed what the decision says.

    Example:
        >>> from preshuffle.registry import Registry
        >>> registry = Registry.default()
        >>> query = Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype="fp4x2", aiter="0.1.20")
        >>> registry.check(observation_of(registry.resolve(query), query)).verdict
        'ok'
    """
    tensors: dict[str, Any] = {}
    source_order = None
    for role, tensor in decision.tensors.items():
        padded = tensor.physical_shape != tensor.logical_shape
        tensors[role] = {
            "layout": tensor.layout,
            "is_shuffled": tensor.is_shuffled if role in ("w13_weight", "w2_weight") else None,
            "dtype": tensor.dtype,
            "logical_shape": tensor.logical_shape,
            "physical_shape": tensor.physical_shape,
            "pad_fill": tensor.fill if padded else None,
        }
        source_order = source_order or tensor.source_order
    call = decision.call
    dispatched = call.function == DISPATCHED  # other functions take no gate_mode
    gate_mode = call.gate_mode if call.gate_mode_passed else "separated"
    applied = {
        "function": call.function,
        "gate_mode": gate_mode if dispatched else None,
        "doweight_stage1": call.doweight_stage1 if is_predicted(call.function) else None,
        "router_weight": "input" if call.weighted_by_caller else None,
        "kernels": () if is_predicted(call.function) else ({"backend": call.backend},),
        "hidden_pad": call.hidden_pad if dispatched else None,
        "intermediate_pad": call.intermediate_pad if dispatched else None,
        "swizzle_mx_scale": call.swizzle_mx_scale,
        "swiglu_limit": call.swiglu_limit,
        "bias_passed": call.bias,
        "expert_map": "mask" if query.ep > 1 else None,
        "source_order": source_order,
        "events": ("apply",),
        "tensors": tensors,
    }
    fields = {name: getattr(query, name) for name in query.model_fields_set}
    fields["env"] = {**decision.env, **query.env}
    # as the kernel gets them: an engine may requantize what the checkpoint holds
    kind = decision.tensors["w13_weight"].dtype.split("_")[0]
    fields |= {"weight_dtype": kind, "quant_type": call.quant_type}
    return Observation.parse({"query": Query.parse(fields), "applied": applied})

"""Observation of a deployment that follows a decision exactly."""

from __future__ import annotations

from collections.abc import Mapping

from preshuffle.registry.base.frozen import FrozenDict, unvalidated
from preshuffle.registry.base.words import Role
from preshuffle.registry.layer import WEIGHTS
from preshuffle.registry.values.decision import CallDecision, Decision, TensorDecision
from preshuffle.registry.values.observation import Applied, Observation, ObservedKernel, TensorObservation
from preshuffle.registry.values.query import Query

DISPATCHED = "fused_moe"
"""AITER's entry point that chooses kernels itself."""
_PREDICTED = frozenset({DISPATCHED, "asm_moe_tkw1"})
"""Entry points whose kernels can be predicted: ``asm_moe_tkw1`` calls ``fused_moe`` with ``doweight_stage1``."""
_APPLIED = Applied().__dict__
_TENSOR = TensorObservation().__dict__


def is_predicted(function: str) -> bool:
    """Return whether AITER's dispatch chooses the kernels behind an entry point."""
    return function in _PREDICTED


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
    applied = applied_by(decision.tensors, decision.call)
    return Observation(query=query_of_kernel(query, applied, decision.call, decision.env), applied=applied)


def applied_by(tensors: Mapping[Role, TensorDecision], call: CallDecision) -> Applied:
    """Return what a loader and an engine do that follow a decision."""
    dispatched = call.function == DISPATCHED  # other functions take no gate_mode
    predicted = is_predicted(call.function)  # other functions say whose kernels run
    told = {
        "gate_mode": (call.gate_mode if call.gate_mode_passed else "separated") if dispatched else None,
        "function": call.function,
        "doweight_stage1": call.doweight_stage1 if predicted else None,
        "router_weight": "input" if call.weighted_by_caller else None,
        "kernels": () if predicted else (ObservedKernel(backend=call.backend),),
        "hidden_pad": call.hidden_pad if dispatched else None,
        "intermediate_pad": call.intermediate_pad if dispatched else None,
        "quant_dtype_a": call.quant_dtype_a,
        "swizzle_mx_scale": call.swizzle_mx_scale,
        "swiglu_limit": call.swiglu_limit,
        "bias_passed": call.bias,
        "expert_map": call.expert_map,
        "source_order": next((tensor.source_order for tensor in tensors.values() if tensor.source_order), None),
        "events": ("apply",),
        "tensors": FrozenDict({role: _reported(role, tensor) for role, tensor in tensors.items()}),
    }
    return unvalidated(Applied, {**_APPLIED, **told}, set(told))


def _reported(role: Role, tensor: TensorDecision) -> TensorObservation:
    told = {
        "layout": tensor.layout,
        "is_shuffled": tensor.is_shuffled if role in WEIGHTS else None,
        "dtype": tensor.dtype,
        "logical_shape": tensor.logical_shape,
        "physical_shape": tensor.physical_shape,
        "passed_shape": tensor.passed_shape,
        "pad_fill": tensor.fill if tensor.physical_shape != tensor.logical_shape else None,
    }
    return unvalidated(TensorObservation, {**_TENSOR, **told}, set(told))


def query_of_kernel(query: Query, applied: Applied, call: CallDecision, env: Mapping[str, str]) -> Query:
    """Return a query as the kernel sees it.

    All that decides its parallelism is stated.

    An engine may requantize what the checkpoint holds, and pass another activation than the model's.
    """
    fields = {
        "weight_dtype": str(applied.tensors["w13_weight"].dtype).split("_")[0],
        "quant_type": call.quant_type,
        "activation": call.activation,
        "tp": query.tp,
        "ep": query.ep,
        "dp": query.dp,
    }
    if env:
        fields["env"] = FrozenDict({**env, **query.env})
    return query.altered(**fields)

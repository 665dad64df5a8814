"""Activation dtype: chosen by GPU, gate mode, environment and token count."""

from typing import Any

from preshuffle.registry.kernels.aiter_versions.dispatch_book import ActivationRule
from preshuffle.registry.kernels.dispatch.case import DispatchCase
from preshuffle.registry.kernels.errors import env_int

QUANT_REMAP = {"per_128x128": "per_1x128"}


def _fits(when: dict[str, Any], facts: dict[str, str], env: dict[str, str]) -> bool:
    for name, allowed in when.items():
        if name == "env":
            if any(env.get(variable) not in values for variable, values in allowed.items()):
                return False
        elif facts[name] not in allowed:
            return False
    return True


def _first_rule(case: DispatchCase) -> ActivationRule | None:
    call = case.call
    facts = {
        "gfx": case.gfx,
        "weight_dtype": call.weight_dtype,
        "quant_type": QUANT_REMAP.get(call.quant_type, call.quant_type),
        "activation": call.activation,
        "gate_mode": call.gate_mode,
    }
    for rule in case.behaviour.data.activation_rules:
        if _fits(rule.when, facts, case.env):
            return rule
    return None


def activation_rule(case: DispatchCase) -> ActivationRule | None:
    """Return the rule for the activation dtype.

    None where it is the weights' own dtype.
    """
    call, behaviour = case.call, case.behaviour
    values = tuple([case.env.get(name) for name in behaviour.activation_env]) if case.env else ()
    key = (behaviour, case.gfx, call.weight_dtype, call.quant_type, call.activation, call.gate_mode, values)
    return case.families.memo.get("activation rules", key, lambda: _first_rule(case))


def activation_dtype(case: DispatchCase, tokens: int) -> str:
    """Return the dtype in which AITER runs the activations of a call.

    Args:
        case: The call under its AITER version; its own token count does not matter.
        tokens: The token count: the raw one is compared with the bounds, not the padded one.

    Raises:
        DispatchError: A bound in the environment is not a number (AITER raises ``ValueError`` on any call).
    """
    if case.call.quant_dtype_a is not None:
        return case.call.quant_dtype_a
    bounds = case.behaviour.data.activation_bounds
    if case.env:
        bounds = {name: env_int(case.env, name, default) for name, default in bounds.items()}
    rule = activation_rule(case)
    if rule is None:
        return case.call.weight_dtype
    if rule.bound is not None and rule.below is not None and tokens < bounds[rule.bound]:
        return rule.below
    return rule.dtype

"""The activation dtype: AITER switches it with architecture, gate mode, environment and token count."""

from typing import Any

from preshuffle.registry.kernels.aiter_versions.behaviour import Behaviour
from preshuffle.registry.kernels.aiter_versions.dispatch_book import ActivationRule
from preshuffle.registry.kernels.call import DispatchCall
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


def _first_rule(behaviour: Behaviour, call: DispatchCall, env: dict[str, str], gfx: str) -> ActivationRule | None:
    facts = {
        "gfx": gfx,
        "weight_dtype": call.weight_dtype,
        "quant_type": QUANT_REMAP.get(call.quant_type, call.quant_type),
        "activation": call.activation,
        "gate_mode": call.gate_mode,
    }
    for rule in behaviour.data.activation_rules:
        if _fits(rule.when, facts, env):
            return rule
    return None


def activation_rule(behaviour: Behaviour, call: DispatchCall, env: dict[str, str], gfx: str) -> ActivationRule | None:
    """Return the rule that fixes the activation dtype, None where it is the weights' own."""
    values = tuple([env.get(name) for name in behaviour.activation_env]) if env else ()
    key = (gfx, call.weight_dtype, call.quant_type, call.activation, call.gate_mode, values)
    try:
        return behaviour.activation_cache[key]
    except KeyError:
        rule = behaviour.activation_cache[key] = _first_rule(behaviour, call, env, gfx)
        return rule


def activation_dtype(behaviour: Behaviour, call: DispatchCall, env: dict[str, str], gfx: str, tokens: int) -> str:
    """Return the dtype in which AITER runs the activations of a call.

    Args:
        behaviour: The AITER version.
        call: The call; its own token count does not matter.
        env: The environment variables that the version reads.
        gfx: Architecture as AITER's ``get_gfx`` gives it.
        tokens: The token count: the raw one is compared with the bounds, not the padded one.

    Raises:
        DispatchError: A bound in the environment is not a number (AITER raises ``ValueError`` on any call).
    """
    if call.quant_dtype_a is not None:
        return call.quant_dtype_a
    bounds = behaviour.data.activation_bounds
    if env:
        bounds = {name: env_int(env, name, default) for name, default in bounds.items()}
    rule = activation_rule(behaviour, call, env, gfx)
    if rule is None:
        return call.weight_dtype
    if rule.bound is not None and rule.below is not None and tokens < bounds[rule.bound]:
        return rule.below
    return rule.dtype

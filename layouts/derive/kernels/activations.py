"""Activations between gate and up."""

import math
from collections.abc import Callable

import numpy as np

from preshuffle.layouts.derive.kernels.weight_formats import Floats

SWIGLU_SLOPE, SWIGLU_LIMIT = 1.702, 7.0
SITU_BETA, SITU_LINEAR_BETA = 4.0, 25.0
"""AITER's defaults of SiTUv2."""


def silu(values: Floats) -> Floats:
    """Return x times sigmoid(x)."""
    result: Floats = values / (1 + np.exp(np.minimum(-values, 700)))
    return result


def gelu(values: Floats) -> Floats:
    """Return x times the normal distribution's integral up to x."""
    integral = np.vectorize(lambda value: (1 + math.erf(value / math.sqrt(2))) / 2, otypes=[np.float64])
    result: Floats = values * integral(values)
    return result


def _gelu_gated(gate: Floats, up: Floats) -> Floats:
    return gelu(gate) * up


def _silu_gated(gate: Floats, up: Floats) -> Floats:
    return silu(gate) * up


def _swiglu_gated(gate: Floats, up: Floats) -> Floats:
    """GPT-OSS's: both clamped, a steeper sigmoid, up plus 1."""
    gate, up = np.minimum(gate, SWIGLU_LIMIT), np.clip(up, -SWIGLU_LIMIT, SWIGLU_LIMIT)
    result: Floats = gate / (1 + np.exp(np.minimum(-SWIGLU_SLOPE * gate, 700))) * (up + 1)
    return result


def _situ_gated(gate: Floats, up: Floats) -> Floats:
    """SiTUv2, as AITER's text has it: tanh bounds both, the gate's times its sigmoid."""
    bounded: Floats = SITU_BETA * np.tanh(gate / SITU_BETA) / (1 + np.exp(np.minimum(-gate, 700)))
    return bounded * SITU_LINEAR_BETA * np.tanh(up / SITU_LINEAR_BETA)


GATED: dict[str, Callable[[Floats, Floats], Floats]] = {
    "silu": _silu_gated,
    "gelu": _gelu_gated,
    "swiglu": _swiglu_gated,
    "situv2": _situ_gated,
}
ALONE: dict[str, Callable[[Floats], Floats]] = {"silu": silu, "gelu": gelu}
"""Activations of kernels without up rows."""


def combine(gate: Floats, up: Floats, activation: str) -> Floats:
    """Return what passes from stage 1 to stage 2."""
    return GATED[activation](gate, up)

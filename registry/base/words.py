"""Vocabularies of roles, dtypes, quantization types and activations, in AITER's spelling.

Every other module takes them from here.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

Role = Literal[
    "w13_weight",
    "w2_weight",
    "w13_weight_scale",
    "w2_weight_scale",
    "w13_bias",
    "w2_bias",
    "w13_input_scale",
    "w2_input_scale",
]
Dtype = Literal["bf16", "fp16", "fp8", "fp4x2", "i4x2", "i8"]
TensorDtype = Literal[
    "bf16", "fp16", "fp8", "fp4x2", "i4x2", "i8", "fp8_e4m3fn", "fp8_e4m3fnuz", "fp32", "e8m0", "uint8"
]
QuantType = Literal["No", "per_Tensor", "per_Token", "per_1x32", "per_1x128"]
CallDtype = Literal[Dtype, "uint8", "uint32"]
"""dtypes that a kernel call takes: ``uint8`` is fp4 not typed as fp4, ``uint32`` is packed int4."""
CallQuantType = Literal[QuantType, "per_128x128"]
"""Quantization types that AITER dispatches, whether or not a recipe uses them."""
Activation = Literal["Silu", "Gelu", "Swiglu", "Situv2"]
"""Activations that AITER's fused MoE computes."""
OtherActivation = Literal["GeluTanh", "Relu", "Relu2", "SwigluStep"]
"""Activations of models for which AITER has no fused MoE; the book's contracts say why."""
ModelActivation = Literal[Activation, OtherActivation]
GateMode = Literal["separated", "interleave"]
RowOrder = Literal["GGUU", "GUGU"]
Step = Literal["fnuz", "requantize_max", "reduce_max", "fold", "fold_max", "pack_int4"]
CallBackend = Literal["aiter", "triton", "mega", "flydsl"]

Shard = Literal["groups", "values", "whole_blocks", "padded"]
"""How a loader cuts the intermediate size between tensor-parallel ranks.

Whole scale groups; equal numbers of values; whole blocks of 128; or slices of the size to which a rank's buffer is
padded.
"""
PassedAs = Literal["rows", "tiles"]
"""Shape in which a kernel takes an MX scale: ``[experts * rows, K]``, or ``[experts, rows / 32, 32 * K]``."""

ROLES: Final[tuple[Role, ...]] = get_args(Role)

STEPS: Final[dict[Step, str]] = {
    "fnuz": "e4m3fn becomes e4m3fnuz: byte 0x80 becomes 0, scales double",
    "requantize_max": "gate's and up's scales become their maximum, with which values are quantized again",
    "reduce_max": "static scales become their maximum",
    "fold": "multiplied by the scale of the scale",
    "fold_max": "multiplied by the larger of gate's and up's scales of the scale",
    "pack_int4": "laid out as int8, then packed, 8 values to 4 bytes",
}
"""What is done to values, in words."""

ACTIVATION_NAMES: Final[dict[str, ModelActivation]] = {
    "silu": "Silu",
    "swish": "Silu",
    "gelu": "Gelu",
    "geglu": "Gelu",
    "gelu_tanh": "GeluTanh",
    "gelu_new": "GeluTanh",
    "gelu_pytorch_tanh": "GeluTanh",
    "swiglu": "Swiglu",
    "swigluoai": "Swiglu",
    "swigluoai_uninterleave": "Swiglu",
    "situ": "Situv2",
    "situv2": "Situv2",
    "relu": "Relu",
    "relu2": "Relu2",
    "squared_relu": "Relu2",
    "relu_squared": "Relu2",
    "swiglustep": "SwigluStep",
}
"""Activations by the names that configurations and engines give them, in small letters.

``geglu`` is Gelu of a gate, ``_no_mul`` behind a name means that there is no gate.
"""

GROUP: Final[dict[str, int]] = {"per_1x32": 32, "per_1x128": 128}
"""Values of K that share one scale, by quant_type. A dimension is cut between ranks in whole groups."""

BLOCK_ROWS: Final[dict[str, int]] = {"per_1x128": 128}
"""Rows that share one scale too, by quant_type: its scales are of blocks. Where it is missing, each row has its own."""

BITS: Final[dict[str, int]] = {
    "fp4x2": 4,
    "i4x2": 4,
    "fp8": 8,
    "fp8_e4m3fn": 8,
    "fp8_e4m3fnuz": 8,
    "i8": 8,
    "e8m0": 8,
    "uint8": 8,
    "bf16": 16,
    "fp16": 16,
    "fp32": 32,
}
"""Bits of one value."""


def activation_of(name: str) -> ModelActivation | None:
    """Return the activation that a configuration or an engine names.

    Example:
        >>> activation_of("relu2"), activation_of("relu2_no_mul"), activation_of("x")
        ('Relu2', 'Relu2', None)
    """
    word = name.casefold().removesuffix("_no_mul").replace("-", "_")
    return ACTIVATION_NAMES.get(word.replace("gelutanh", "gelu_tanh"))

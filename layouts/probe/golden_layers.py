"""Catalogue of golden layers, one per quantization.

Small enough to run anywhere.
"""

from __future__ import annotations

from typing import Any, Final

from preshuffle.registry import LayoutError, Query

SIZES: Final[dict[str, Any]] = {"hidden_size": 320, "intermediate_size": 320, "num_experts": 8, "top_k": 4}
"""Small, with gpt-oss's pads: 320 is padded by 192, as its 2880 is."""
BLOCKS: Final[dict[str, Any]] = {"hidden_size": 384, "intermediate_size": 384}
"""For what comes in blocks of 128, which cannot be padded."""
TILED: Final[dict[str, Any]] = {"hidden_size": 512, "intermediate_size": 512}
"""For CK's fp8 kernels, which take whole tiles of up to 256 values along K."""
MODEL: Final = "openai/gpt-oss-120b"
_GENERAL: Final[dict[str, Any]] = {
    "model": "golden/layer",
    "activation": "Silu",
    "gate_up_order": "GGUU",
    "bias": False,
}
DEFAULT: Final = "mxfp4"
LAYERS: Final[dict[str, dict[str, Any]]] = {
    "mxfp4": {"model": MODEL, "activation_dtype": "bf16"},
    "mxfp4-silu": {"weight_dtype": "fp4x2", "quant_type": "per_1x32", "activation_dtype": "fp4x2"},
    "mxfp8": {"weight_dtype": "fp8", "quant_type": "per_1x32", "activation_dtype": "fp8"},
    "fp8-block": {"weight_dtype": "fp8", "quant_type": "per_1x128", "activation_dtype": "fp8", **BLOCKS},
    "fp8-channel": {"weight_dtype": "fp8", "quant_type": "per_Token", "activation_dtype": "fp8"},
    "fp8-tensor": {"weight_dtype": "fp8", "quant_type": "per_Tensor", "activation_dtype": "fp8", **TILED},
    "bf16": {"weight_dtype": "bf16", "quant_type": "No", "activation_dtype": "bf16"},
    "fp16": {"weight_dtype": "fp16", "quant_type": "No", "activation_dtype": "fp16"},
    "int4": {"weight_dtype": "i4x2", "quant_type": "per_1x32", "activation_dtype": "bf16", **BLOCKS},
    "int4-fp8": {"weight_dtype": "i4x2", "quant_type": "per_Token", "activation_dtype": "fp8", **TILED},
}
"""By quantization; ``mxfp4`` is gpt-oss's layer (SwiGLU with a limit, biases, alternating rows)."""
_NOT: Final[dict[str, str]] = {
    "Situv2": "its formula is not recorded here, so that there is nothing to compare a kernel with",
}
"""Activations that no golden layer has, and why."""


def golden_query(arch: str = "gfx950", quantization: str | None = None, **fields: Any) -> Query:
    """Return the query of a golden layer.

    Args:
        arch: for predictions, and for the rules.
        quantization: one of ``LAYERS``; gpt-oss's MXFP4 by default.
        fields: of the query, over those of the layer; a ``model`` has its own quantization, in small sizes.

    Raises:
        LayoutError: there is no golden layer of the name.
        QueryError: a field is wrong.
    """
    if quantization is not None and quantization not in LAYERS:
        raise LayoutError(f"no golden layer is called {quantization!r}; valid: {', '.join(LAYERS)}")
    if quantization is None and "model" in fields and fields["model"] != MODEL:
        return Query.parse({"arch": arch, **SIZES, **fields})
    layer = LAYERS[quantization or DEFAULT]
    general = {} if "model" in layer else _GENERAL
    return Query.parse({"arch": arch, **general, **SIZES, **layer, **fields})


def why_no_layer(activation: str, limit: float | None, gated: bool) -> str | None:
    """Return why a layer cannot be golden; None where it can."""
    if activation in _NOT:
        return f"no golden layer for {activation}: {_NOT[activation]}"
    if not gated:
        return "no golden layer without a gate: swapping gate and up is the first mistake that it has to show"
    if limit is not None and activation != "Swiglu":
        return f"no golden layer for {activation} with a limit: where kernels clamp it is not recorded here"
    return None

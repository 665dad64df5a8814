"""Observations of deployments that did everything right, to be bent by tests: no model's entry is needed."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from typing import Any

from preshuffle.registry import Observation, Registry, Report

Raw = dict[str, Any]

SIZES = {"hidden_size": 5120, "intermediate_size": 2048, "num_experts": 64, "top_k": 6}
A4W4 = {"weight_dtype": "fp4x2", "quant_type": "per_1x32", "activation": "Silu", "activation_dtype": "fp4x2"}
SWIGLU = {**A4W4, "activation": "Swiglu"}
A8W4 = {**A4W4, "activation_dtype": "fp8", "env": {"AITER_BF16_FP8_MOE_BOUND": "0"}}
MXFP8 = {"weight_dtype": "fp8", "quant_type": "per_1x32", "activation": "Silu", "activation_dtype": "fp8"}
BLOCK = {"weight_dtype": "fp8", "quant_type": "per_1x128", "activation": "Silu"}
TOKEN = {"weight_dtype": "fp8", "quant_type": "per_Token", "activation": "Silu"}
TENSOR = {"weight_dtype": "fp8", "quant_type": "per_Tensor", "activation": "Silu"}
BF16 = {"weight_dtype": "bf16", "quant_type": "No", "activation": "Silu"}
SITU = {**A4W4, "activation": "Situv2", "activation_dtype": "bf16"}

SEPARATED = ("sep16", "e8", "sep16", "e8")
INTERLEAVED = ("gui16", "e8_gui16", "sep16", "e8")
GFX1250 = ("gurow16", "n32k4_gurow", "sep16", "n32k4")
PLAIN = ("plain", "plain", "plain", "plain")
TILES = ("sep16", "plain", "sep16", "plain")


@lru_cache(maxsize=1)
def registry() -> Registry:
    return Registry.load()


def deployment(kind: Raw, layouts: tuple[str, str, str, str], *, pad: int = 1, **fields: Any) -> Raw:
    """Return a right observation: weights and scales as named, padded to ``pad``, tagged where they are laid out."""
    query: Raw = {"model": "test/model", "arch": "gfx950", "cu_num": 256, "gate_up_order": "GGUU", "bias": False}
    query |= {"tp": 1, "ep": 1, "aiter": "0.1.20", **SIZES, **kind}
    query |= {name: value for name, value in fields.items() if name not in ("applied",)}
    experts = query["num_experts"] // query["ep"]
    hidden, inter = query["hidden_size"], query["intermediate_size"] // query["tp"]
    wide, broad = -(-hidden // pad) * pad, -(-inter // pad) * pad
    live = {"w13_weight": (2 * inter, hidden), "w2_weight": (hidden, inter)}
    full = {"w13_weight": (2 * broad, wide), "w2_weight": (wide, broad)}
    tensors: Raw = {}
    for role, layout, scale in (("w13_weight", *layouts[:2]), ("w2_weight", *layouts[2:])):
        tensors[role] = {
            "layout": layout,
            "is_shuffled": layout != "plain",
            "logical_shape": [experts, *live[role]],
            "physical_shape": [experts, *full[role]],
        }
        if query["quant_type"] == "per_1x32":
            tile = {"e8": 8, "e8_gui16": 8, "n32k4": 4, "n32k4_gurow": 4}.get(scale, 1)
            groups, stored = -(-live[role][1] // 32), -(-full[role][1] // 32)
            tensors[f"{role}_scale"] = {
                "layout": scale,
                "logical_shape": [experts, live[role][0], groups],
                "physical_shape": [experts, full[role][0], -(-stored // tile) * tile],
            }
    applied: Raw = {"tensors": tensors, **fields.get("applied", {})}
    if pad > 1:
        applied = {"hidden_pad": wide - hidden, "intermediate_pad": broad - inter, **applied}
    return deepcopy({"query": query, "applied": applied})


def bent(raw: Raw, **changes: Any) -> Raw:
    """Return a copy with changes: ``query={…}``, ``applied={…}``, or a role with fields of its tensor."""
    copy = deepcopy(raw)
    for name, change in changes.items():
        target = copy[name] if name in copy else copy["applied"]["tensors"].setdefault(name, {})
        target.update(change)
    return copy


def report(raw: Raw) -> Report:
    return registry().check(Observation.parse(raw))


def codes(raw: Raw) -> set[str]:
    return {finding.code for finding in report(raw).findings}


SEP, ITLV = {"gate_mode": "separated"}, {"gate_mode": "interleave"}
AITER = {"kernels": [{"backend": "aiter"}]}
TRITON = {"kernels": [{"backend": "triton"}]}

RIGHT = {
    "a4w4": deployment(A4W4, SEPARATED, applied=SEP),
    "a8w4": deployment(A8W4, INTERLEAVED, applied=ITLV),
    "swiglu": deployment(SWIGLU, SEPARATED, applied=SEP, activation_dtype=None),
    "swiglu.gui": deployment(SWIGLU, INTERLEAVED, applied=ITLV, activation_dtype=None),
    "mxfp8": deployment(MXFP8, INTERLEAVED, applied=ITLV),
    "situ": deployment(SITU, SEPARATED, applied=SEP),
    "situ.a8w4": deployment(SITU, INTERLEAVED, applied=ITLV, activation_dtype="fp8", env={"AITER_SITUV2_A8W4": "1"}),
    "gfx1250": deployment(A4W4, GFX1250, applied=ITLV, arch="gfx1250"),
    "block": deployment(BLOCK, TILES, applied=AITER),
    "block.942": deployment(BLOCK, TILES, applied=AITER, arch="gfx942", cu_num=304),
    "token": deployment(TOKEN, TILES, applied=AITER),
    "tensor": deployment(TENSOR, TILES, applied=AITER),
    "bf16": deployment(BF16, TILES, applied=AITER),
    "triton": deployment(BF16, PLAIN, applied=TRITON),
    "triton.mx": deployment(A4W4, PLAIN, applied=TRITON | {"swizzle_mx_scale": "none"}, activation_dtype=None),
    "padded": deployment(A4W4, SEPARATED, pad=256, hidden_size=5000, intermediate_size=1800, applied=SEP),
    "expert parallel": deployment(A4W4, SEPARATED, ep=8, applied=SEP | {"expert_map": "mask"}),
}

"""Recipes whose steps change values, on small layers: a book on top of the packaged one, and plain tensors for it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from preshuffle.registry import Decision, Query, Registry

HIDDEN, INTERMEDIATE, EXPERTS = 256, 128, 3
HALVES = 2 * INTERMEDIATE
Tensors = dict[str, torch.Tensor]
_ALL = "evidence: [x]"
_EXACT = "activation: Silu, deployment: steps, producer: steps, tp: 1"  # more than the packaged rules name


def _weights(dtype: str, more: str = "", layout: str = "sep16") -> str:
    return (
        f"w13_weight: {{layout: {layout}, dtype: {dtype}, order: GGUU, is_shuffled: true{more}}}\n"
        f"      w2_weight: {{layout: {layout}, dtype: {dtype}, is_shuffled: true{more}}}"
    )


def _scales(dtype: str, more: str = "", layout: str = "plain") -> str:
    return (
        f"      w13_weight_scale: {{layout: {layout}, dtype: {dtype}, order: GGUU{more}}}\n"
        f"      w2_weight_scale: {{layout: {layout}, dtype: {dtype}{more}}}"
    )


_FNUZ = ", steps: [fnuz]"
RECIPES: dict[str, tuple[str, str, str]] = {
    "block": ("per_1x128", f"{_weights('fp8', _FNUZ)}\n{_scales('fp32', _FNUZ)}", "separated"),
    "tensor": (
        "per_Tensor",
        "w13_weight: {layout: sep16, dtype: fp8, order: GGUU, is_shuffled: true, steps: [fnuz, requantize_max]}\n"
        "      w2_weight: {layout: sep16, dtype: fp8, is_shuffled: true, steps: [fnuz]}\n"
        "      w13_weight_scale: {layout: plain, dtype: fp32, order: GGUU, steps: [fnuz, requantize_max]}\n"
        "      w2_weight_scale: {layout: plain, dtype: fp32, steps: [fnuz]}\n"
        "      w13_input_scale: {layout: plain, dtype: fp32, steps: [fnuz, reduce_max]}\n"
        "      w2_input_scale: {layout: plain, dtype: fp32, steps: [fnuz, reduce_max]}",
        "separated",
    ),
    "token": ("per_Token", f"{_weights('fp8', _FNUZ)}\n{_scales('fp32', _FNUZ)}", "separated"),
    "folded": ("per_Token", f"{_weights('fp8')}\n{_scales('fp32', ', steps: [fold]')}", "separated"),
    "int4": (
        "per_1x32",
        f"{_weights('i4x2', ', steps: [pack_int4]')}\n{_scales('bf16', '', 'i4_scale_pairs')}",
        "separated",
    ),
    "mxfp8": (
        "per_1x32",
        f"{_weights('fp8', _FNUZ)}\n{_scales('e8m0', ', tail: {rows: 256, k: 8}, fill: 127, steps: [fnuz]', 'e8')}",
        "separated",
    ),
    "mxfp4": (
        "per_1x32",
        f"{_weights('fp4x2')}\n{_scales('e8m0', ', tail: {rows: 256, k: 8}, fill: 127', 'e8')}\n"
        "      w13_bias: {layout: plain, dtype: fp32, order: GGUU}\n      w2_bias: {layout: plain, dtype: fp32}",
        "separated",
    ),
    "alternating": (
        "per_1x32",
        "w13_weight: {layout: plain, dtype: fp4x2, order: GUGU}\n      w2_weight: {layout: plain, dtype: fp4x2}\n"
        "      w13_weight_scale: {layout: plain, dtype: e8m0, order: GUGU}\n"
        "      w2_weight_scale: {layout: plain, dtype: e8m0}\n"
        "      w13_bias: {layout: plain, dtype: fp32, order: GUGU}\n      w2_bias: {layout: plain, dtype: fp32}",
        "interleave",
    ),
    "gurow": (
        "per_1x32",
        "w13_weight: {layout: sep16, dtype: fp4x2, order: GUGU, is_shuffled: true}\n"
        "      w2_weight: {layout: sep16, dtype: fp4x2, is_shuffled: true}",
        "interleave",
    ),
}
WEIGHTS = {"int4": "i4x2", "mxfp4": "fp4x2", "alternating": "fp4x2", "gurow": "fp4x2"}


@lru_cache(maxsize=1)
def registry() -> Registry:
    lines = ["recipes:"]
    for name, (quant, tensors, mode) in RECIPES.items():
        lines += [f"  steps.{name}:", "    tensors:", f"      {tensors}"]
        lines += [f"    call: {{gate_mode: {mode}, quant_type: {quant}}}", f"    {_ALL}"]
    lines.append("rules:")
    for name in RECIPES:
        when = f"    when: {{model: steps/{name}, {_EXACT}}}"
        lines += [f"  steps.{name}:", when, f"    use: steps.{name}", "    priority: 1000"]
        lines += ["    because: a test", f"    {_ALL}"]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "steps.yaml"
        path.write_text("\n".join(lines) + "\n")
        return Registry.load([path])


def decide(name: str, arch: str = "gfx942", **fields: Any) -> Decision:
    """Decide one of the recipes on a small layer.

    Findings are left out: these recipes make bytes that no kernel reads, which ``apply`` would refuse.
    """
    query: dict[str, Any] = {
        "model": f"steps/{name}",
        "arch": arch,
        "weight_dtype": WEIGHTS.get(name, "fp8"),
        "quant_type": RECIPES[name][0],
        "activation": "Silu",
        "deployment": "steps",
        "producer": "steps",
        "activation_dtype": "bf16",
        "gate_up_order": "GGUU",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_experts": EXPERTS,
        "top_k": 2,
        "bias": name in ("alternating", "mxfp4"),
        "tokens": [1],
    }
    return registry().resolve(Query.parse({**query, **fields})).model_copy(update={"findings": ()})


def fp8(*shape: int, seed: int = 0, zeros: bool = False) -> torch.Tensor:
    """Random e4m3fn bytes without NaN; with negative zeros if they are wanted."""
    data = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    data[(data & 0x7F) == 0x7F] = 1
    if not zeros:
        data[data == 0x80] = 2
    return data.view(torch.float8_e4m3fn)


def floats(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) + 0.25


def raw_bytes(*shape: int, seed: int = 2, low: int = 0, high: int = 256) -> torch.Tensor:
    return torch.randint(low, high, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(torch.uint8)


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    return raw(left).view(-1).equal(raw(right).view(-1))


def copies(tensors: Tensors) -> Tensors:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def mx(
    weight: str, intermediate: int = INTERMEDIATE, experts: int = EXPERTS, scale: tuple[int, int] = (1, 200)
) -> Tensors:
    def make(rows: int, k: int) -> torch.Tensor:
        return fp8(experts, rows, k) if weight == "fp8" else raw_bytes(experts, rows, k // 2)

    return {
        "w13_weight": make(2 * intermediate, HIDDEN),
        "w2_weight": make(HIDDEN, intermediate),
        "w13_weight_scale": raw_bytes(experts, 2 * intermediate, HIDDEN // 32, low=1, high=200),
        "w2_weight_scale": raw_bytes(experts, HIDDEN, intermediate // 32, seed=4, low=1, high=200),
    }


def biases() -> Tensors:
    return {"w13_bias": floats(EXPERTS, HALVES), "w2_bias": floats(EXPERTS, HIDDEN, seed=3)}


def put_first(buffer: torch.Tensor, live: torch.Tensor) -> None:
    buffer[: live.shape[0], : live.shape[1]] = live

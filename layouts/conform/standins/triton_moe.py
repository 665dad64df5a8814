"""AITER's Triton MoE GEMMs as a runner of golden layers.

Routing is in plain torch; there are two GEMMs.

The kernels are AITER's own; what is replaced is its routing, which needs a GPU, and arguments that only AMD's compiler
knows.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, silu

from preshuffle.layouts.conform.standins.mx_activations import mx_fp4, mx_fp8
from preshuffle.registry import Decision

MODULES = "aiter.ops.triton.moe.moe_op_gemm_"
ROUTING = "aiter.ops.triton.moe.moe_routing.routing"
REDUCE = "aiter.ops.triton.moe.reduce"
AMD_ONLY = ("waves_per_eu", "matrix_instr_nonkdim", "kpack")
COMPUTE_UNITS = 256
Quantized = tuple[Tensor, Tensor | None]


@dataclass(frozen=True, slots=True)
class Gemm:
    """One of AITER's Triton MoE GEMMs.

    Attributes:
        kernel: its Triton kernel's name in the module.
        quantize: what a caller makes of its activations.
    """

    kernel: str
    quantize: Callable[[Tensor], Quantized]


GEMMS = {
    "moe_gemm_a16w4": Gemm("_moe_gemm_a16w4_triton", lambda values: (values.to(torch.bfloat16), None)),
    "moe_gemm_a8w4": Gemm("_moe_gemm_a8w4_triton", mx_fp8),
    "moe_gemm_a4w4": Gemm("_moe_gemm_a4w4", mx_fp4),
}
"""By the function that engines call."""


class PortableKernel:
    """Kernel called without the arguments that only AMD's compiler knows."""

    def __init__(self, kernel: Any) -> None:
        """Take a kernel of Triton's."""
        self.kernel = kernel

    def __getitem__(self, grid: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self.kernel[grid](*args, **{name: kwargs[name] for name in kwargs if name not in AMD_ONLY})

        return call


def _portable(kernel: Any) -> PortableKernel:
    return kernel if isinstance(kernel, PortableKernel) else PortableKernel(kernel)


def _replace(module: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    vars(module)[name] = wrap(getattr(module, name))


class TritonMoe:
    """Runner of one GEMM, twice, as engines call it."""

    def __init__(self, function: str, labels: Mapping[str, str]) -> None:
        """Import AITER's kernels.

        Args:
            function: one of ``GEMMS``.
            labels: the kernel's name of a scale's layout, by layout id; others are passed as they are.

        Raises:
            ImportError: this AITER has none of that name.
        """
        self.labels = labels
        self.function, self.gemm = function, GEMMS[function]
        self.op: Any = importlib.import_module(MODULES + function.rpartition("_")[2])
        self.routing: Any = importlib.import_module(ROUTING)
        reduce: Any = importlib.import_module(REDUCE)
        _replace(self.op, self.gemm.kernel, _portable)
        _replace(reduce, "_reduce_grouped", _portable)
        vars(self.op).update(get_num_sms=lambda: COMPUTE_UNITS, pick_gemm_num_stages=lambda *_, **__: 1)
        choose = vars(self.op)["get_kernel_config_triton"]

        def smaller(*args: Any) -> dict[str, Any]:
            """Choose blocks that fit the registers of other GPUs, too."""
            config: dict[str, Any] = choose(*args)
            return {**config, "block_n": min(config["block_n"], 128), "block_k": 256, "num_warps": 8, "num_stages": 1}

        vars(self.op)["get_kernel_config_triton"] = smaller

    def __call__(
        self, tensors: dict[str, Tensor], decision: Decision, x: Tensor, topk_ids: Tensor, topk_weights: Tensor
    ) -> Tensor:
        """Return the layer's output, ``bf16 [tokens, hidden]``."""
        data, gather, scatter = self._route(topk_ids.long(), topk_weights, tensors["w13_weight"].shape[0])
        w13, w2 = (tensors[f"{name}_weight"].view(torch.uint8) for name in ("w13", "w2"))
        hidden, scales = self.gemm.quantize(pad(x, (0, w13.shape[-1] * 2 - x.shape[1])))
        run = getattr(self.op, self.function)
        call, swiglu = decision.call, decision.call.activation == "Swiglu"
        common = {"routing_data": data, "backend": "triton"}
        options = {"apply_swiglu": True, "alpha": call.swiglu_alpha, "limit": call.swiglu_limit} if swiglu else {}
        middle = run(
            hidden,
            w13.transpose(-1, -2),
            x_scales=scales,
            **self._scales("w13", tensors, decision),
            bias=tensors.get("w13_bias"),
            gather_indx=gather,
            **common,
            **options,
        )
        if not swiglu:
            gate, up = middle.chunk(2, dim=-1)
            middle = silu(gate) * up
        middle, scales = self.gemm.quantize(middle[:, : w2.shape[-1] * 2].contiguous())
        out = run(
            middle,
            w2.transpose(-1, -2),
            x_scales=scales,
            **self._scales("w2", tensors, decision),
            bias=tensors.get("w2_bias"),
            scatter_indx=scatter,
            gammas=data.gate_scal,
            **common,
        )
        result: Tensor = out[:, : x.shape[1]]
        return result

    def _scales(self, name: str, tensors: Mapping[str, Tensor], decision: Decision) -> dict[str, Any]:
        """Return scales as the kernel takes them: ``[E, K, N]``, or one row of tiles per 32 rows."""
        experts, rows = tensors[f"{name}_weight"].shape[:2]
        label = self.labels.get(decision.tensors["w13_weight_scale" if name == "w13" else "w2_weight_scale"].layout)
        raw = tensors[f"{name}_weight_scale"].view(torch.uint8)
        raw = raw.reshape(experts, rows // 32 if label else rows, -1)
        return {"w_scales": raw.transpose(-1, -2), "swizzle_mx_scale": label}

    def _route(self, chosen: Tensor, weights: Tensor, experts: int) -> tuple[Any, Tensor, Tensor]:
        tokens, topk = chosen.shape
        order = torch.argsort(chosen.flatten(), stable=True)
        hist = torch.bincount(chosen.flatten(), minlength=experts).int()
        block_m = 16 if tokens * topk / experts <= 16 else 32 if tokens * topk / experts <= 32 else 64
        blocks = (hist + block_m - 1) // block_m
        raw, padded = (torch.cat([part.new_zeros(1), part.cumsum(0)]).int() for part in (hist, blocks))
        data = self.routing.RoutingData(block_m, weights.flatten().float()[order].contiguous(), hist, experts, topk)
        pids = [(block << 16) | expert for expert, n in enumerate(blocks.tolist()) for block in range(n)]
        pids += [-1] * max(0, data.n_blocks(tokens * topk, block_m) - len(pids))
        pid_map = torch.tensor(pids, dtype=torch.int32, device=chosen.device)
        data.expt_data = self.routing.ExptData(hist, raw, padded, pid_map)
        return data, order.int(), torch.argsort(order).int()

"""AITER's real Python functions, and a ``fused_moe`` that records arguments."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from preshuffle.layouts.conform.standins.aiter_modules import GPU, install_aiter
from preshuffle.layouts.conform.standins.anything import install_standins, module_of

calls: list[dict[str, Any]] = []
"""What ``fused_moe`` was called with, by the names of its parameters."""

WITH_COMPILED_PARTS: Final = (
    *("aiter.tuned_gemm", "aiter.ops.triton.gemm", "aiter.ops.triton.fusions", "aiter.ops.triton.moe"),
)
"""Modules of AITER that need its compiled extensions, and lay out no weights."""

WITH_INIT: Final = ("aiter.ops.triton",)
"""Packages of AITER whose own ``__init__`` runs: it knows former names of its modules, which engines still use."""

EXPORTS: Final = {
    "aiter.ops.shuffle": ("shuffle_weight", "shuffle_weight_a16w4", "shuffle_scale_a16w4"),
    "aiter.ops.quant": ("get_torch_quant", "get_hip_quant", "pertoken_quant", "per_tensor_quant"),
}
"""AITER's functions that its package exports, by the modules that define them."""


def install_recorded_aiter(root: Path, package: Path, arch: str, compute_units: int) -> None:
    """Put AITER into ``sys.modules``, with a ``fused_moe`` that records.

    Args:
        root: the checkout, or the folder with ``aiter_meta``.
        package: the folder of the package ``aiter``.
        arch: the GPU that it is told of.
        compute_units: of that GPU.
    """
    sys.modules.setdefault("regex", re)
    GPU.gfx, GPU.cu_num = arch, compute_units
    aiter = install_aiter(root, package, with_init=WITH_INIT)
    module_of("aiter.fused_moe", fused_moe=_recorder(package / "fused_moe.py", "fused_moe"))
    install_standins((), WITH_COMPILED_PARTS)
    for module, names in EXPORTS.items():
        defining = importlib.import_module(module)
        for name in names:
            if hasattr(defining, name):
                setattr(aiter, name, getattr(defining, name))
    for owner in (aiter, sys.modules["aiter.ops.quant"]):
        owner.static_per_tensor_quant = static_per_tensor_quant  # type: ignore[attr-defined]


def static_per_tensor_quant(out: Tensor, values: Tensor, scale: Tensor) -> None:
    """Quantize with one scale as AITER's compiled kernel does.

    Values are fp16 or bf16. They are multiplied by the scale's reciprocal. fp8 is clamped; int8 is cut to a whole
    number whose low byte stays (``csrc/include/aiter_opus_plus.h``: ``fp32_to_fp8_scaled_x2``,
    ``fp32_to_i8_scaled_x2``).

    Raises:
        RuntimeError: other values (``csrc/include/aiter_dispatch.h``: ``AITER_DISPATCH_FLOATING16_TYPES_rmTorch``).
    """
    if values.dtype not in (torch.float16, torch.bfloat16):
        raise RuntimeError(f"scaled_quant_kernel not implemented for dtype {values.dtype}")
    scaled = values.float() * (1 / scale.float())
    if out.dtype is torch.int8:
        out.copy_(scaled.to(torch.int32).to(torch.int8))
        return
    largest = torch.finfo(out.dtype).max
    out.copy_(scaled.clamp(-largest, largest).to(out.dtype))


def _recorder(path: Path, name: str) -> Callable[..., Any]:
    """Return a function with the signature of the one in a file, that records its arguments."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name), None)
    if found is None:
        raise ImportError(f"{path.name} defines no {name}")
    names = [argument.arg for argument in found.args.args]
    defaults = found.args.defaults
    texts = dict(zip(names[len(names) - len(defaults) :], map(ast.unparse, defaults), strict=True))
    parameters = [
        *(_parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, texts.get(name)) for name in names),
        *(_parameter(argument.arg, inspect.Parameter.KEYWORD_ONLY, "None") for argument in found.args.kwonlyargs),
    ]
    signature = inspect.Signature(parameters)

    def record(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        calls.append(dict(bound.arguments))
        hidden, w2 = bound.arguments["hidden_states"], bound.arguments["w2"]
        return hidden.new_zeros(hidden.shape[0], w2.shape[1], dtype=hidden.dtype)

    record.__signature__ = signature  # type: ignore[attr-defined]
    return record


def _parameter(name: str, kind: Any, default: str | None) -> inspect.Parameter:
    """Return a parameter; defaults that are no plain value count as None, since the caller leaves them out."""
    if default is None:
        return inspect.Parameter(name, kind)
    try:
        return inspect.Parameter(name, kind, default=ast.literal_eval(default))
    except ValueError:
        return inspect.Parameter(name, kind, default=None)

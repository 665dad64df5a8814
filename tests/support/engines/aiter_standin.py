"""AITER as engines see it on a GPU: its real Python functions, and a `fused_moe` that records its arguments."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import Callable
from enum import IntEnum
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from support.engines.standins import install_standins, module_of


class ActivationType(IntEnum):
    """AITER's activations."""

    No = -1
    Silu = 0
    Gelu = 1
    Swiglu = 2
    Situv2 = 3


class QuantType(IntEnum):
    """AITER's quantization types."""

    No = 0
    per_Tensor = 1
    per_Token = 2
    per_1x32 = 3
    per_1x128 = 4
    per_128x128 = 5
    per_256x128 = 6
    per_1024x128 = 7


calls: list[dict[str, Any]] = []
"""What `fused_moe` was called with, by the names of its parameters, defaults filled in."""


def install_aiter(tree: Path, arch: str, compute_units: int) -> None:
    """Put `aiter` of a tree into `sys.modules`, compiled parts replaced."""
    aiter = module_of("aiter", ActivationType=ActivationType, QuantType=QuantType)
    aiter.__path__ = [str(tree / "aiter")]
    spec = ModuleSpec("aiter", None, is_package=True)
    spec.submodule_search_locations = [str(tree / "aiter")]
    aiter.__spec__ = spec
    _package("aiter.ops", tree / "aiter" / "ops")
    _package("aiter.jit", tree / "aiter" / "jit")
    _package("aiter.jit.utils", tree / "aiter" / "jit" / "utils")
    _package("aiter.utility", tree / "aiter" / "utility")
    module_of(
        "aiter.jit.utils.chip_info",
        get_gfx=lambda: arch,
        get_gfx_runtime=lambda: arch,
        get_gfx_list=lambda: [arch],
        get_cu_num=lambda: compute_units,
    )
    module_of("aiter.jit.core", compile_ops=_not_compiled, AITER_ROOT_DIR=str(tree))
    module_of("aiter.jit.utils.torch_guard", torch_compile_guard=_not_compiled)
    has_mx = arch in ("gfx950", "gfx1250")
    module_of(
        "aiter.ops.triton.utils._triton.arch_info",
        get_arch=lambda: arch,
        is_gluon_avail=lambda: has_mx,
        is_fp4_avail=lambda: has_mx,
        is_fp8_avail=lambda: True,
        is_mx_scale_preshuffling_avail=lambda: has_mx,
        is_tdm_avail=lambda: arch == "gfx1250",
    )
    module_of("aiter.ops.enum", ActivationType=ActivationType, QuantType=QuantType, Enum=int)
    module_of("aiter.fused_moe", fused_moe=_recorder(tree / "aiter" / "fused_moe.py", "fused_moe"))
    install_standins(["aiter"], WITH_COMPILED_PARTS)
    for module, names in REAL.items():
        real = importlib.import_module(module)
        for name in names:
            setattr(aiter, name, getattr(real, name))
    for owner in (aiter, sys.modules["aiter.ops.quant"]):
        owner.static_per_tensor_quant = static_per_tensor_quant  # type: ignore[attr-defined]
    aiter.dtypes = importlib.import_module("aiter.utility.dtypes")  # type: ignore[attr-defined]


def static_per_tensor_quant(out: Tensor, values: Tensor, scale: Tensor) -> None:
    """Quantize fp16 or bf16 values with one scale as AITER's compiled kernel does.

    Values are multiplied by the scale's reciprocal. fp8 is clamped; int8 is cut to a whole number whose low byte stays
    (`csrc/include/aiter_opus_plus.h`: `fp32_to_fp8_scaled_x2`, `fp32_to_i8_scaled_x2`).

    Raises:
        RuntimeError: other values (`csrc/include/aiter_dispatch.h`: `AITER_DISPATCH_FLOATING16_TYPES_rmTorch`).
    """
    if values.dtype not in (torch.float16, torch.bfloat16):
        raise RuntimeError(f"scaled_quant_kernel not implemented for dtype {values.dtype}")
    scaled = values.float() * (1 / scale.float())
    if out.dtype is torch.int8:
        out.copy_(scaled.to(torch.int32).to(torch.int8))
        return
    largest = torch.finfo(out.dtype).max
    out.copy_(scaled.clamp(-largest, largest).to(out.dtype))


WITH_COMPILED_PARTS = ("aiter.tuned_gemm", "aiter.ops.triton.gemm", "aiter.ops.triton.fusions", "aiter.ops.triton.moe")
"""Modules of AITER that need its compiled extensions, and lay out no weights."""

REAL = {
    "aiter.ops.shuffle": ("shuffle_weight", "shuffle_weight_a16w4", "shuffle_scale_a16w4"),
    "aiter.ops.quant": ("get_torch_quant", "get_hip_quant", "pertoken_quant", "per_tensor_quant"),
}
"""AITER's functions that its package exports, by the modules that define them."""


def _package(name: str, folder: Path) -> None:
    """Put an empty package before a folder, so that its own `__init__` does not run."""
    made = sys.modules[name] = ModuleType(name)
    made.__path__ = [str(folder)]
    made.__spec__ = ModuleSpec(name, None, is_package=True)
    parent, _, child = name.rpartition(".")
    setattr(sys.modules[parent], child, made)


def _not_compiled(*_: Any, **__: Any) -> Callable[[Any], Any]:
    return lambda function: function


def _recorder(path: Path, name: str) -> Callable[..., Any]:
    """Return a function with the signature of the one in a file, that records its arguments."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (found,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    names = [argument.arg for argument in found.args.args]
    texts = dict(zip(names[-len(found.args.defaults) :], map(ast.unparse, found.args.defaults), strict=True))
    parameters = [
        *(_parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, texts.get(name)) for name in names),
        *(_parameter(argument.arg, inspect.Parameter.KEYWORD_ONLY, "None") for argument in found.args.kwonlyargs),
    ]
    signature = inspect.Signature(parameters)

    def record(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        calls.append({"passed": tuple(bound.arguments), **bound.arguments})
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

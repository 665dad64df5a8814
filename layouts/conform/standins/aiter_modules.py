"""AITER's Python modules on a machine without ROCm: compiled parts are replaced.

Every module of its tree is the real one, except package ``__init__`` files and what asks for a GPU or a compiler.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from preshuffle.layouts.conform.standins.anything import install_standins, installed, module_of

UNUSED = ("flydsl", "triton", "psutil", "einops", "pybind11", "ninja", "zmq", "cpuinfo", "packaging", "yaml")
"""Packages that AITER's modules import, and that none of what runs here needs."""


class NativeCallError(RuntimeError):
    """A compiled function of AITER's was called; there is none here."""


class AiterEnum(Enum):
    """Enum like pybind11's: equal to its own members alone."""

    def __int__(self) -> int:
        return int(self.value)

    def __index__(self) -> int:
        return int(self.value)


class ActivationType(AiterEnum):
    """AITER's activations."""

    No = -1
    Silu = 0
    Gelu = 1
    Swiglu = 2
    Situv2 = 3


class QuantType(AiterEnum):
    """AITER's quantization types."""

    No = 0
    per_Tensor = 1
    per_Token = 2
    per_1x32 = 3
    per_1x128 = 4
    per_128x128 = 5
    per_256x128 = 6
    per_1024x128 = 7


@dataclass
class PretendedGpu:
    """GPU that AITER's functions are told of."""

    gfx: str = "gfx950"
    cu_num: int = 256


GPU = PretendedGpu()
_MX_GPUS = ("gfx950", "gfx1250")
GFX_OF_CU_NUM = {256: "gfx950", 80: "gfx942", 304: "gfx942"}


def native(name: str) -> Callable[..., Any]:
    """Return a function of a name that raises when it is called."""

    def function(*args: Any, **kwargs: Any) -> Any:
        raise NativeCallError(f"{name} is compiled, and there is none here")

    function.__name__ = function.__qualname__ = name
    return function


class BarePackage(ModuleType):
    """Package whose ``__init__`` did not run; what it would export is compiled."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        for folder in self.__path__:
            if (Path(folder) / f"{name}.py").is_file() or (Path(folder) / name).is_dir():
                return importlib.import_module(f"{self.__name__}.{name}")
        made = native(name)
        setattr(self, name, made)
        return made


class PackageFinder(MetaPathFinder):
    """Import hook that finds folders below AITER's package without running their ``__init__``."""

    def __init__(self, with_init: Sequence[str] = ()) -> None:
        """Take the packages whose ``__init__`` runs."""
        self.with_init = tuple(with_init)

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a folder; modules are left to others."""
        if not fullname.startswith(("aiter.", "csrc.")) or fullname in self.with_init:
            return None
        for folder in path or ():
            place = Path(folder) / fullname.rpartition(".")[2]
            if place.is_dir() and not place.with_suffix(".py").is_file():
                spec = ModuleSpec(fullname, self, is_package=True)  # type: ignore[arg-type]
                spec.submodule_search_locations = [str(place)]
                return spec
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return an empty package."""
        return BarePackage(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing."""


def install_aiter(root: Path, package: Path, with_init: Sequence[str] = (), **core: Any) -> ModuleType:
    """Put ``aiter`` and ``csrc`` into ``sys.modules``.

    Args:
        root: the checkout, or the folder with ``aiter_meta``.
        package: the folder of the package ``aiter``.
        with_init: packages below it whose own ``__init__`` runs.
        core: what ``aiter.jit.core`` has besides its stand-ins.
    """
    sys.meta_path.insert(0, PackageFinder(with_init))
    install_standins([name for name in UNUSED if not installed(name)])
    aiter = _bare("aiter", package)
    csrc = root / "aiter_meta" / "csrc" if (root / "aiter_meta").is_dir() else root / "csrc"
    _bare("csrc", csrc)
    logger = logging.getLogger("aiter")
    logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.CRITICAL)
    vars(aiter).update(ActivationType=ActivationType, QuantType=QuantType, logger=logger)
    for name in ("aiter.jit", "aiter.jit.utils"):
        _bare(name, package.joinpath(*name.split(".")[1:]))
    answers: dict[str, Callable[..., Any]] = {
        "get_gfx": lambda *_: GPU.gfx,
        "get_gfx_runtime": lambda *_: GPU.gfx,
        "get_gfx_list": lambda *_: [GPU.gfx],
        "get_cu_num": lambda *_: GPU.cu_num,
        "gfx_from_cu_num": _gfx_of,
    }
    module_of("aiter.jit.utils.chip_info", **answers)
    module_of("aiter.jit.utils.torch_guard", torch_compile_guard=_keep)
    module_of(
        "aiter.jit.core",
        **{"compile_ops": _compiled, "PY": "python", "bd_dir": "", "AITER_CSRC_DIR": str(csrc), "logger": logger},
        **{"get_asm_dir": lambda: "", "AITER_ROOT_DIR": str(root), "mp_lock": native("mp_lock")},
        **core,
    )
    module_of("aiter.ops.enum", ActivationType=ActivationType, QuantType=QuantType, Enum=int)
    arch_info: dict[str, Callable[..., Any]] = {
        "get_arch": lambda *_: GPU.gfx,
        "is_fp4_avail": lambda: GPU.gfx in _MX_GPUS,
        "is_fp8_avail": lambda: True,
        "is_mx_scale_preshuffling_avail": lambda: GPU.gfx in _MX_GPUS,
        "is_gluon_avail": lambda: GPU.gfx == "gfx1250",
        "is_tdm_avail": lambda: GPU.gfx == "gfx1250",
    }
    module_of("aiter.ops.triton.utils._triton.arch_info", **arch_info)
    aiter.dtypes = _dtypes()  # type: ignore[attr-defined]
    return aiter


def _bare(name: str, folder: Path) -> ModuleType:
    made = BarePackage(name)
    made.__path__ = [str(folder)]
    made.__spec__ = ModuleSpec(name, None, is_package=True)
    made.__spec__.submodule_search_locations = [str(folder)]
    sys.modules[name] = made
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, made)
    return made


def _gfx_of(cu_num: Any) -> str:
    return GFX_OF_CU_NUM.get(int(cu_num), GPU.gfx)


def _keep(*_: Any, **__: Any) -> Callable[[Any], Any]:
    return lambda function: function


def _compiled(*_: Any, **__: Any) -> Callable[[Any], Any]:
    """Stand for the decorator of compiled functions: the names stay."""
    return lambda function: native(function.__name__)


def _dtypes() -> Any:
    """Return AITER's own table of dtypes, for the GPU that is pretended."""
    with suppress(Exception):
        return importlib.import_module("aiter.utility.dtypes")
    import torch

    fp8 = {"gfx942": torch.float8_e4m3fnuz, "gfx950": torch.float8_e4m3fn}.get(GPU.gfx, torch.uint8)
    plain = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "i8": torch.int8}
    packed = {
        "i4x2": getattr(torch, "int4", torch.uint8),
        "fp4x2": torch.float4_e2m1fn_x2,
        "fp8_e8m0": torch.float8_e8m0fnu,
    }
    return SimpleNamespace(fp8=fp8, i32=torch.int32, u32=torch.uint32, **plain, **packed)


def dtype_names() -> dict[Any, str]:
    """Return the names that calls here use for AITER's dtypes."""
    dtypes = sys.modules["aiter"].dtypes
    import torch

    names = {getattr(dtypes, name): name for name in ("fp16", "bf16", "i8", "i4x2", "fp4x2", "fp8")}
    return {torch.uint8: "uint8", torch.uint32: "uint32", **names}

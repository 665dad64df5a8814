"""AMD's AITER wheel on a machine without ROCm: its layout functions and Triton kernels, for tests only.

`import aiter` needs ROCm, but the modules with the layout functions are plain torch and Triton. They load under a bare
`aiter` package whose `__path__` is the wheel's folder. Some of them ask `aiter.jit.utils.chip_info` for the GPU while
they are imported, so that module is replaced by a stub that answers gfx950.
"""

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

DISTRIBUTION = "amd-aiter"
PINNED = f"{DISTRIBUTION}==0.1.7.post2.dev18"
UNRELATED_DISTRIBUTION = "aiter"  # same import name, nothing to do with AMD
ROOT_VARIABLE = "PRESHUFFLE_AITER_WHEEL_ROOT"


class WheelNotFoundError(RuntimeError):
    """AMD's wheel is not there, or `aiter` would come from somewhere else."""


@dataclass(frozen=True, slots=True)
class AiterFunctions:
    """AITER's own functions; they stay usable after `aiter_modules` has ended."""

    shuffle_weight: Callable[..., Tensor]
    shuffle_weight_a16w4: Callable[[Tensor, int, bool], Tensor]
    shuffle_scale_a16w4: Callable[[Tensor, int, bool], Tensor]
    e8m0_shuffle: Callable[[Tensor], Tensor]
    mxfp4_to_f32: Callable[[Tensor], Tensor]
    e8m0_to_f32: Callable[[Tensor], Tensor]


def wheel_root() -> Path:
    """Return the folder that holds the wheel's `aiter/`.

    Raises:
        WheelNotFoundError: nothing there, or the unrelated distribution called `aiter` is installed.
    """
    override = os.environ.get(ROOT_VARIABLE)
    root = Path(override) if override else _installed_root()
    if not (root / "aiter" / "ops" / "shuffle.py").is_file():
        raise WheelNotFoundError(f"{root} has no aiter/ops/shuffle.py of {DISTRIBUTION}")
    return root


def _installed_root() -> Path:
    if any(True for _ in metadata.distributions(name=UNRELATED_DISTRIBUTION)):
        raise WheelNotFoundError(f"the distribution {UNRELATED_DISTRIBUTION!r} is not AMD's: uninstall it")
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        hint = f"`pip install --no-deps {PINNED}` (make install does it), or set {ROOT_VARIABLE}"
        raise WheelNotFoundError(f"{DISTRIBUTION} is not installed: {hint}") from error
    return Path(str(distribution.locate_file("")))


@contextmanager
def aiter_modules() -> Iterator[AiterFunctions]:
    """Install the bare `aiter` package, yield AITER's functions, and put `sys.modules` back as it was.

    Inside, `triton_kernel` works too. Outside, code that looks for AITER sees what it would see without the tests.
    """
    package = wheel_root() / "aiter"
    before = _remove_aiter()
    try:
        sys.modules["aiter"] = _bare_package(package)
        sys.modules["aiter.jit.utils.chip_info"] = _chip_info()
        shuffle = _import("aiter.ops.shuffle")
        fp4_utils = _import("aiter.utility.fp4_utils")
        yield AiterFunctions(
            shuffle_weight=shuffle.shuffle_weight,
            shuffle_weight_a16w4=shuffle.shuffle_weight_a16w4,
            shuffle_scale_a16w4=shuffle.shuffle_scale_a16w4,
            e8m0_shuffle=fp4_utils.e8m0_shuffle,
            mxfp4_to_f32=fp4_utils.mxfp4_to_f32,
            e8m0_to_f32=fp4_utils.e8m0_to_f32,
        )
    finally:
        _remove_aiter()
        sys.modules.update(before)


def triton_kernel(module: str, name: str) -> Any:
    """Return a kernel of `aiter/ops/triton/_triton_kernels/<module>.py`; only inside `aiter_modules`."""
    return getattr(_import(f"aiter.ops.triton._triton_kernels.{module}"), name)


def _import(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite turns warnings into errors; the wheel's are not ours
        return importlib.import_module(name)


def _remove_aiter() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name == "aiter" or name.startswith("aiter.")]
    return {name: sys.modules.pop(name) for name in names}


def _bare_package(folder: Path) -> ModuleType:
    spec = ModuleSpec("aiter", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    return importlib.util.module_from_spec(spec)


def _chip_info() -> ModuleType:
    stub = ModuleType("aiter.jit.utils.chip_info")
    for name in ("get_gfx", "get_gfx_runtime"):
        setattr(stub, name, lambda: "gfx950")
    stub.get_cu_num = lambda: 256  # type: ignore[attr-defined]
    return stub

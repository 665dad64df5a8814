"""Kernel of any kind, by name or file."""

from pathlib import Path

from preshuffle.layouts.derive.errors import DeriveError, UnknownGpuError, UnknownKernelError
from preshuffle.layouts.derive.flydsl.build import BuildOptions, build_kernel
from preshuffle.layouts.derive.flydsl.ir_file import IrFile, is_ir
from preshuffle.layouts.derive.flydsl.kernel import FlydslKernel
from preshuffle.layouts.derive.kernels.assembly_kernel import AssemblyKernel
from preshuffle.layouts.derive.kernels.derivable import DerivableKernel
from preshuffle.layouts.derive.kernels.kernel_files import ARCHS, aiter_root, find_kernel
from preshuffle.layouts.derive.kernels.nearest_kernels import did_you_mean
from preshuffle.layouts.emulator import CodeObject

FLYDSL_PREFIX = "flydsl_"
FLYDSL_ARCH = "gfx950"
"""GPU for which FlyDSL kernels are compiled where none is named."""


def open_kernel(
    kernel: str, aiter: str = "installed", arch: str | None = None, options: BuildOptions | None = None
) -> DerivableKernel:
    """Return a kernel that can be run.

    Args:
        kernel: a code object's file or the stem of one, a file with a FlyDSL kernel's MLIR, or a kernel's name as
            AITER's tables have it.
        aiter: ``installed``, or the folder of a checkout or unpacked wheel.
        arch: GPU, where there is a choice.
        options: of FlyDSL kernels, what their call decides.

    Raises:
        DeriveError: there is no such kernel, or none for that GPU.
        EmulatorError: the file is damaged.
    """
    if arch is not None and arch not in ARCHS:
        raise UnknownGpuError(arch, ARCHS)
    try:
        return _open(kernel, aiter, arch, options)
    except UnknownKernelError as error:
        raise UnknownKernelError(f"{error}{_nearest(kernel, aiter, arch)}") from error


def _nearest(kernel: str, aiter: str, arch: str | None) -> str:
    """Return the end of the message on an unknown kernel; empty without an AITER to look in."""
    try:
        root = aiter_root(aiter)
    except DeriveError:
        return ""
    return did_you_mean(kernel, root, (arch,) if arch else ARCHS)


def _open(kernel: str, aiter: str, arch: str | None, options: BuildOptions | None) -> DerivableKernel:
    path = Path(kernel)
    found: DerivableKernel
    if not path.is_file() and kernel.startswith(FLYDSL_PREFIX):
        return FlydslKernel(build_kernel(kernel, aiter, arch or FLYDSL_ARCH, options))
    if path.is_file() and is_ir(path):
        found = FlydslKernel(IrFile.read(path))
    else:
        path = find_kernel(kernel, aiter, arch)
        found = AssemblyKernel(CodeObject.read(path), path.stem)
    if arch is not None and arch != found.arch:
        raise DeriveError(f"{path} is a kernel of {found.arch}, not of {arch}")
    return found

"""Layouts that a kernel reads, found by running it on tagged tensors."""

from preshuffle.layouts.derive.derivation import KernelDeriver
from preshuffle.layouts.derive.errors import AiterNotInstalledError, DeriveError
from preshuffle.layouts.derive.flydsl.build import BuildOptions, build_kernel
from preshuffle.layouts.derive.flydsl.ir_file import IrFile
from preshuffle.layouts.derive.flydsl.kernel import FlydslKernel
from preshuffle.layouts.derive.kernels.assembly_kernel import AssemblyKernel
from preshuffle.layouts.derive.kernels.derivable import DerivableKernel
from preshuffle.layouts.derive.kernels.kernel_family import FAMILIES, KernelFamily, KernelKind, kind_of
from preshuffle.layouts.derive.kernels.kernel_files import find_kernel, hsa_folder
from preshuffle.layouts.derive.kernels.kernel_run import KernelRun
from preshuffle.layouts.derive.kernels.layer_run import LayerRun, LayerSizes
from preshuffle.layouts.derive.kernels.numbers import NumbersTrial
from preshuffle.layouts.derive.kernels.random_layer import random_routing
from preshuffle.layouts.derive.open_kernel import open_kernel
from preshuffle.layouts.derive.result import KernelDerivation, RoleDerivation

__all__ = [
    "FAMILIES",
    "AiterNotInstalledError",
    "AssemblyKernel",
    "BuildOptions",
    "DerivableKernel",
    "DeriveError",
    "FlydslKernel",
    "IrFile",
    "KernelDerivation",
    "KernelDeriver",
    "KernelFamily",
    "KernelKind",
    "KernelRun",
    "LayerRun",
    "LayerSizes",
    "NumbersTrial",
    "RoleDerivation",
    "build_kernel",
    "find_kernel",
    "hsa_folder",
    "kind_of",
    "open_kernel",
    "random_routing",
]

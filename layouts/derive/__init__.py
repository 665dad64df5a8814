"""Layouts that a kernel reads, found by running it on tagged tensors."""

from preshuffle.layouts.derive.derivation import KernelDeriver
from preshuffle.layouts.derive.errors import AiterNotInstalledError, DeriveError
from preshuffle.layouts.derive.kernels.assembly_kernel import AssemblyKernel
from preshuffle.layouts.derive.kernels.derivable import DerivableKernel
from preshuffle.layouts.derive.kernels.kernel_family import FAMILIES, KernelFamily, KernelKind, kind_of
from preshuffle.layouts.derive.kernels.kernel_files import find_kernel, hsa_folder
from preshuffle.layouts.derive.kernels.kernel_run import KernelRun
from preshuffle.layouts.derive.kernels.layer_run import LayerRun, LayerSizes
from preshuffle.layouts.derive.kernels.numbers import NumbersTrial
from preshuffle.layouts.derive.kernels.random_layer import random_routing
from preshuffle.layouts.derive.result import KernelDerivation, RoleDerivation

__all__ = [
    "FAMILIES",
    "AiterNotInstalledError",
    "AssemblyKernel",
    "DerivableKernel",
    "DeriveError",
    "KernelDerivation",
    "KernelDeriver",
    "KernelFamily",
    "KernelKind",
    "KernelRun",
    "LayerRun",
    "LayerSizes",
    "NumbersTrial",
    "RoleDerivation",
    "find_kernel",
    "hsa_folder",
    "kind_of",
    "random_routing",
]

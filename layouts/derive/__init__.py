"""Layouts that a kernel reads, found by running it on tagged tensors."""

from preshuffle.layouts.derive.derivation import KernelDerivation, KernelDeriver, RoleDerivation
from preshuffle.layouts.derive.errors import DeriveError
from preshuffle.layouts.derive.kernel_family import FAMILIES, KernelFamily, KernelKind, kind_of
from preshuffle.layouts.derive.kernel_files import find_kernel, hsa_folder
from preshuffle.layouts.derive.kernel_run import KernelRun, LayerSizes
from preshuffle.layouts.derive.numbers import NumbersTrial
from preshuffle.layouts.derive.random_layer import random_routing

__all__ = [
    "FAMILIES",
    "DeriveError",
    "KernelDerivation",
    "KernelDeriver",
    "KernelFamily",
    "KernelKind",
    "KernelRun",
    "LayerSizes",
    "NumbersTrial",
    "RoleDerivation",
    "find_kernel",
    "hsa_folder",
    "kind_of",
    "random_routing",
]

"""Prebuilt kernels of AMD's wheel for tests, and what they need; tests skip without it."""

import pytest

pytest.importorskip("tinygrad", reason="tinygrad is not installed: pip install '.[proofs]'")

from functools import cache
from pathlib import Path

from preshuffle.layouts.derive import (
    AssemblyKernel,
    DeriveError,
    KernelDeriver,
    KernelRun,
    LayerSizes,
    NumbersTrial,
    find_kernel,
    kind_of,
    random_routing,
)
from preshuffle.layouts.emulator import CodeObject, Program
from preshuffle.registry import Layout, Registry
from preshuffle.registry.loading import Book


def kernel_path(stem: str, arch: str) -> Path:
    """Return a kernel's code object, or skip the test."""
    try:
        return find_kernel(stem, arch=arch)
    except DeriveError as error:
        pytest.skip(str(error))


@cache
def program_of(stem: str, arch: str) -> Program:
    return Program(CodeObject.read(kernel_path(stem, arch)))


@cache
def book_layouts() -> dict[str, Layout]:
    return {id: entry.layout() for id, entry in Registry.load().book.layouts.items()}


def numbers_trial(stem: str, arch: str) -> NumbersTrial:
    program, kind = program_of(stem, arch), kind_of(stem)
    sizes = LayerSizes(experts=2, inter_dim=2 * kind.tile_n, model_dim=512)
    return NumbersTrial(KernelRun(program, kind, sizes, random_routing(sizes, kind.tile_m)), book_layouts())


def deriver_of(stem: str, arch: str, book: Book | None = None) -> KernelDeriver:
    kernel = AssemblyKernel(CodeObject.read(kernel_path(stem, arch)), stem)
    return KernelDeriver(kernel, book or Registry.load().book)

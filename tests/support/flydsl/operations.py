"""Single operations of MLIR, run on the threads of one wave."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tinygrad", reason="tinygrad is not installed: pip install '.[proofs]'")

from preshuffle.layouts.emulator import GlobalMemory
from preshuffle.layouts.emulator.mlir import launch
from preshuffle.layouts.emulator.mlir.lanes import WITHOUT_EFFECT
from preshuffle.layouts.emulator.mlir.operations import COMPILERS, Operation, compile_operation
from preshuffle.layouts.emulator.mlir.text import parse_module
from preshuffle.layouts.emulator.mlir.threads import Grid, Threads

LDS_BYTES = 4096
ALL = frozenset(COMPILERS)
__all__ = ["ALL", "WITHOUT_EFFECT", "parse", "run", "threads"]
assert launch.OPERATIONS


def parse(text: str) -> Operation:
    """Return an operation of MLIR's generic form, for example ``"llvm.add"(%a, %b) : (i32, i32) -> i32``."""
    body = f'"builtin.module"() ({{\n^bb0:\n{text}\n}}) : () -> ()'
    return Operation.of(parse_module(body).region[0].operations[0])


def threads(arch: str = "gfx950", memory: GlobalMemory | None = None, blocks: int = 1, per_block: int = 64) -> Threads:
    """Return threads of some blocks, with a variable in local memory."""
    ids = np.stack([np.arange(blocks), np.arange(blocks) + 10, np.arange(blocks) + 20], 1).astype(np.uint32)
    grid = Grid(ids, (blocks, 7, 9), (per_block, 1, 1))
    return Threads(arch, grid, {"buffer": 1024}, LDS_BYTES, memory or GlobalMemory())


def run(text: str, *operands: Any, on: Threads | None = None) -> Any:
    """Return what an operation gives for these operands."""
    with np.errstate(all="ignore"):
        return compile_operation(parse(text))(on or threads(), *operands)

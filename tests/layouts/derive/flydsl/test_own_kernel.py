"""Our own FlyDSL kernel: derived from its stored MLIR, and compiled where flydsl is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from preshuffle.layouts.derive import KernelDeriver
from preshuffle.registry import Registry
from support.flydsl.operations import ALL
from support.flydsl.tiled_kernel import TiledKernel
from support.flydsl.tiled_product import SOURCE

assert ALL
COMPILE = """
import sys
from preshuffle.layouts.derive.flydsl import build_worker
from support.flydsl.tiled_product import build
build_worker.compile_apart(build(), build_worker.arguments_of(["pointer"] * 3 + ["integer"]))
"""


def test_the_layout_of_the_stored_kernel_is_derived() -> None:
    result = KernelDeriver(TiledKernel(), Registry.load().book).derive(numbers=False)
    role = result.roles["w2_weight"]
    assert (role.layout, role.pattern) == ("sep16", "e (nt n16) (kt k16) -> e nt kt n16 k16")
    assert (role.derived, role.bytes, role.conflicts) == (4096, 4096, 0)
    assert (role.verdict, result.book_family) == ("unclaimed", None)


def test_a_kernel_that_reads_otherwise_gives_another_layout() -> None:
    swapped = SOURCE.read_text(encoding="utf-8")
    stride, tiles = "value = 2048 : i64", "value = 1024 : i64"
    assert stride in swapped
    assert tiles in swapped
    swapped = swapped.replace(stride, "value = X").replace(tiles, stride).replace("value = X", tiles)
    role = KernelDeriver(TiledKernel(swapped), Registry.load().book).derive(numbers=False).roles["w2_weight"]
    assert role.conflicts == 0
    assert role.layout != "sep16"
    assert role.pattern is not None


def test_the_kernel_compiles_to_the_stored_text(tmp_path: Path) -> None:
    pytest.importorskip("flydsl", reason="flydsl is not installed: pip install flydsl")
    from preshuffle.layouts.derive.flydsl.build_worker import STAGE, generic_form
    from preshuffle.layouts.emulator.mlir import KernelIr

    environment = os.environ | {
        "COMPILE_ONLY": "1",
        "FLYDSL_DUMP_IR": "1",
        "FLYDSL_DUMP_DIR": str(tmp_path / "dump"),
        "FLYDSL_RUNTIME_CACHE_DIR": str(tmp_path / "cache"),
        "FLYDSL_GPU_ARCH": "gfx950",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    subprocess.run([sys.executable, "-c", COMPILE], env=environment, check=True, capture_output=True, timeout=200)
    dump = next((tmp_path / "dump").rglob(STAGE))
    script = f"import json, sys; from pathlib import Path; from {generic_form.__module__} import generic_form; "
    script += f"print(json.dumps(generic_form(Path({str(dump)!r}).read_text())))"
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    compiled, stored = KernelIr(json.loads(done.stdout)), KernelIr(SOURCE.read_text(encoding="utf-8"))
    assert compiled.operations == stored.operations
    role = KernelDeriver(TiledKernel(json.loads(done.stdout)), Registry.load().book).derive(numbers=False).roles
    assert role["w2_weight"].layout == "sep16"

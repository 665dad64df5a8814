"""Derivation of CK-Tile's kernels, compiled and run on a CPU.

CK-Tile kernels are compiled where AITER is installed, so that there is no code object to read. This script compiles the
kernel template of an unpacked `amd-aiter` wheel for one tile with Debian's clang, derives what it reads as
`preshuffle derive` does, and prints the same JSON.

Run `python bench/derive_cktile.py --stage 1`; it needs `clang-22`, `lld-22` and HIP's headers
(`libamdhip64-dev`), no GPU and no ROCm, and about a minute a kernel. For gfx950 only: gfx942 has no instruction that
converts fp4, and what the compiler makes of it there calls functions, which the emulator does not model.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from preshuffle.layouts.derive import KernelDeriver, hsa_folder
from preshuffle.layouts.derive.kernels.derivable import DerivableKernel
from preshuffle.layouts.derive.kernels.kernel_family import KernelFamily, KernelKind
from preshuffle.layouts.derive.kernels.layer_run import READ_AHEAD, LayerRun, LayerSizes
from preshuffle.layouts.derive.kernels.routing import TileRouting
from preshuffle.layouts.derive.kernels.weight_formats import Floats
from preshuffle.layouts.emulator import CodeObject, Program, bf16_to_float, launch
from preshuffle.registry import Registry
from preshuffle.registry.kernels import Families, RuntimeFacts, Stage, installed_package

ARCH = "gfx950"
TILE = (16, 128, 256)
MODEL_DIM = 512
"""Two steps of the loop over K: the kernel for an even number of them."""
EVEN_STEPS, STORES = "TailNumberE1E", "memory_operation_enumE0E"
FUNCTIONS = {"1": "cktile_moe_stage1", "2": "cktile_moe_stage2"}
KINDS = {"1": "kFFN_gemm1_gate_up", "2": "kFFN_gemm2"}

OPTIONS = (
    *("-x", "hip", "--offload-device-only", "--no-gpu-bundle-output", "-nogpulib", "--hip-path=/usr"),
    *("-fuse-ld=/usr/bin/ld.lld-22", "-std=c++20", "-O3", "-w", "-D__HIP_PLATFORM_AMD__=1"),
    "-DCK_TILE_USE_LLVM_BUILTIN_BF16=1",  # without it clang 22 finds no atomic addition of two bf16
)

EMPTY_HEADERS = (
    *("ATen/ATen.h", "ATen/hip/HIPContext.h", "ATen/hip/impl/HIPGuardImplMasqueradingAsCUDA.h"),
    *("ATen/hip/impl/HIPStreamMasqueradingAsCUDA.h", "torch/all.h", "py_itfs_common.h"),
)
"""Headers that AITER includes beside its kernel, and that nothing here needs."""
TORCH_HEADER = "#pragma once\n#include <functional>\n#include <optional>\nnamespace torch { class Tensor; }\n"

BEFORE = """#pragma once
#define __AMDGCN_WAVEFRONT_SIZE 64
#define DEVICE extern "C" __attribute__((device))
typedef _Float16 two_halves __attribute__((ext_vector_type(2)));
DEVICE inline _Float16 __llvm_amdgcn_rcp_f16(_Float16 x) { return (_Float16)__builtin_amdgcn_rcph(x); }
DEVICE inline two_halves __llvm_amdgcn_rcp_2f16(two_halves x) {
  return two_halves{__llvm_amdgcn_rcp_f16(x.x), __llvm_amdgcn_rcp_f16(x.y)};
}
"""
"""What Debian's headers of HIP 5.2 expect of an older clang."""

SOURCE = """#include "moe_cktile2stages_common.cuh"
using NoScale = ck_tile::FlatmmScalePointer<-1>;
using Arguments =
    ck_tile::MoeFlatmmHostArgs<NoScale, ck_tile::FlatmmScalePointer<1, 32>, ck_tile::FlatmmScalePointer<1>>;
using Tile = MoeFlatmmConfig<bf16, {tile}, 1, 4, 16, 16, 32, 2>;
template void moe_gemm<Tile, bf16, pk_fp4, ck_tile::tuple<>, float, bf16, row_major, col_major, ck_tile::tuple<>,
    row_major, ck_tile::MoeFlatmmKind::{kind}, ck_tile::element_wise::PassThrough, Arguments>(
    const Arguments&, const ck_stream_config&);
#define PURE __attribute__((const))
DEVICE PURE size_t __ockl_get_group_id(unsigned axis) {{
  return axis == 0   ? __builtin_amdgcn_workgroup_id_x()
         : axis == 1 ? __builtin_amdgcn_workgroup_id_y()
                     : __builtin_amdgcn_workgroup_id_z();
}}
DEVICE PURE size_t __ockl_get_local_id(unsigned axis) {{
  return axis == 0 ? __builtin_amdgcn_workitem_id_x() : 0;
}}
DEVICE PURE unsigned __ockl_mul_hi_u32(unsigned a, unsigned b) {{ return ((unsigned long)a * b) >> 32; }}
DEVICE PURE float __ocml_exp_f32(float x) {{ return __builtin_amdgcn_exp2f(x * 1.4426950408889634f); }}
"""
"""One instance of AITER's kernel, and what ROCm's device library would bring."""


def compiled(meta: Path, stage: str, folder: Path) -> Path:
    """Compile one kernel of a wheel's sources; return its code object."""
    for name in EMPTY_HEADERS:
        _write(folder / "stand-ins" / name, "#pragma once\n")
    _write(folder / "stand-ins" / "torch/extension.h", TORCH_HEADER)
    _write(folder / "before.h", BEFORE)
    _write(folder / "kernel.hip", SOURCE.format(tile=", ".join(map(str, TILE)), kind=KINDS[stage]))
    includes = (
        folder / "stand-ins",
        meta / "csrc/ck_tile_gemm_moe_2stages/include",
        meta / "3rdparty/composable_kernel/include",
    )
    target = folder / "kernel.co"
    command = [
        *("clang-22", f"--offload-arch={ARCH}", *OPTIONS, "-include", str(folder / "before.h")),
        *(f"-I{path}" for path in includes),
        *("-c", str(folder / "kernel.hip"), "-o", str(target)),
    ]
    subprocess.run(command, check=True)
    return target


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


class CkTileKernel(DerivableKernel):
    """CK-Tile kernel of one stage."""

    def __init__(self, code: CodeObject, stage: str) -> None:
        """Prepare a kernel."""
        stages: dict[str, KernelFamily] = {
            "1": KernelFamily("cktile_stage1", "", "1", "fp4", "mx", "bf16", (), activation_format="bf16"),
            "2": KernelFamily("cktile_stage2", "", "2", "fp4", "mx", "bf16", (), activation_format="bf16"),
        }
        self.kind = KernelKind(stages[stage], TILE[0], TILE[1])
        self.name, self.arch, self.sha256 = "", code.arch, code.sha256
        self.activation, self.gate_mode = "swiglu", "interleave"
        self.top_k = 2
        self.program = Program(code)

    def not_modelled(self) -> Counter[str]:
        """Return instructions that the emulator does not model."""
        return self.program.not_modelled()

    def sizes(self, wide: bool = False) -> LayerSizes:
        """Return the size of a small layer."""
        if self.kind.family.stage == "2":
            return LayerSizes(2, MODEL_DIM, 2 * TILE[1])
        return LayerSizes(2, TILE[1], MODEL_DIM)

    def run(self, sizes: LayerSizes, routing: TileRouting) -> LayerRun:
        """Return the kernel with buffers for a layer and a routing."""
        return CkTileRun(self.program, self.kind, sizes, routing)


class CkTileRun(LayerRun):
    """CK-Tile kernel with its buffers."""

    def __init__(self, program: Program, kind: KernelKind, sizes: LayerSizes, routing: TileRouting) -> None:
        """Allocate buffers for a layer and a routing."""
        super().__init__(kind, sizes, routing)
        self.program = program
        rows, k = self.x_shape
        weight = "w13" if kind.family.stage == "1" else "w2"
        _, self._columns, _ = sizes.shape(f"{weight}_weight")
        slots = routing.tokens * routing.top_k
        self._out_shape = (slots, sizes.inter_dim) if kind.family.stage == "1" else (routing.tokens, self._columns)
        size = {
            "out": 2 * self._out_shape[0] * self._out_shape[1],
            "x": 2 * rows * k,
            "x_scale": 16,
            **{name: self.weight_size(f"{name}_weight") for name in ("w13", "w2")},
            **{f"{name}_scale": self.scale_size(f"{name}_weight") for name in ("w13", "w2")},
            "bias": 4 * sizes.experts * self._columns,
            "valid": 8,
            "sorted_ids": 4 * len(routing.sorted_ids),
            "tile_experts": 4 * len(routing.tile_experts),
            "weights": 4 * len(routing.sorted_ids),
        }
        for name, count in size.items():
            self.memory.reserve(name, count, READ_AHEAD)
        self._set("valid", np.array([len(routing.sorted_ids), routing.tokens], np.int32))
        self._set("sorted_ids", routing.sorted_ids)
        self._set("tile_experts", routing.tile_experts)
        self._set("weights", routing.weights)
        packed = np.frombuffer(self._packed_arguments(weight, k), np.uint8)
        self._arguments = self.memory.add("arguments", packed, READ_AHEAD)

    @property
    def arch(self) -> str:
        """GPU that the kernel is for."""
        return self.program.code.arch

    def run(self) -> Floats:
        """Run all blocks and return the output."""
        self.memory.bytes_of("out")[:] = 0
        launch(self.program, self.memory, self._arguments, [(block, 0, 0) for block in range(self._blocks)])
        found = bf16_to_float(self.memory.bytes_of("out").view(np.uint16)).astype(np.float64).reshape(self._out_shape)
        return found.reshape(self.routing.tokens, self.routing.top_k, -1) if self.kind.family.stage == "1" else found

    @property
    def _blocks(self) -> int:
        return len(self.routing.tile_experts) * (self._columns // TILE[1])

    def _packed_arguments(self, weight: str, k: int) -> bytes:
        """Return the kernel's arguments, HIP's hidden ones included."""
        address = self.memory.address
        buffers = ("sorted_ids", "tile_experts", "valid", "weights", "x", weight, "out")
        rows, columns = len(self.routing.sorted_ids), self._columns
        sizes = [self.routing.tokens, self.routing.top_k, rows, columns, k, k, k, self._out_shape[1]]
        k_batch, no_pads = 1, [0, 0]
        return b"".join(
            (
                *(address(name).to_bytes(8, "little") for name in buffers),
                np.array([*sizes, k_batch, *no_pads, 0], np.int32).tobytes(),
                bytes(8),
                *(address(name).to_bytes(8, "little") for name in (f"{weight}_scale", "bias")),
                np.array([1, 0], np.int32).tobytes(),
                np.array([self._blocks, 1, k_batch], np.int32).tobytes(),
                np.array([256, 1, 1], np.uint16).tobytes(),
                bytes(238),
            )
        )


def claim(families: Families, stage: str) -> Stage:
    """Return the book's claim about this kernel."""
    facts = RuntimeFacts("bf16", "fp4x2", "per_1x32", "interleave", "true", "1", "auto", ARCH)
    if stage == "1":
        return families.stages_of(FUNCTIONS["1"], "", None, "", facts)[0]
    second = families.stages_of("", "", FUNCTIONS["2"], "", facts)[1]
    return second or Stage(func=FUNCTIONS["2"], kernel="", family=None)


def main() -> None:
    """Compile and derive one kernel, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=tuple(KINDS), default="1")
    parser.add_argument("--code", type=Path, help="a code object that was compiled before")
    parser.add_argument("--keep", type=Path, help="where to write the code object")
    args = parser.parse_args()
    book = Registry.load().book
    with tempfile.TemporaryDirectory() as folder:
        path = args.code or compiled(hsa_folder().parent, args.stage, Path(folder))
        if args.keep is not None:
            args.keep.write_bytes(path.read_bytes())
        code = CodeObject.read(path, (EVEN_STEPS, STORES))
    deriver = KernelDeriver(CkTileKernel(code, args.stage), book)
    deriver.claim = claim(book.families, args.stage)
    result = deriver.derive(progress=lambda line: print(line, file=sys.stderr))
    print(
        result.altered(kernel=FUNCTIONS[args.stage], aiter=installed_package()[1], compiler="clang-22").model_dump_json(
            indent=1
        )
    )


if __name__ == "__main__":
    main()

"""Product of bf16 rows with weights in (16, 16) tiles: a small FlyDSL kernel.

``python -m support.flydsl.tiled_product FILE`` (with flydsl installed) writes its MLIR, from which
``tests/support/flydsl/tiled_product.mlir`` is. Blocks (row tile, column tile) of one wave each multiply 16 rows by 16
columns; every lane takes 16 bytes of the weights, those of a wave lie one behind the other.
"""

from pathlib import Path
from typing import Any

K, COLUMNS = 64, 32
STEP = 32
LANE_BYTES, TILE_BYTES = 16, 1024
SOURCE = Path(__file__).with_name("tiled_product.mlir")


def build() -> Any:
    """Return the launcher of the kernel."""
    import flydsl.compiler as flyc
    import flydsl.expr as fx
    from flydsl._mlir import ir
    from flydsl._mlir.dialects import arith, llvm
    from flydsl.expr import gpu, ptrtoint

    def place(pointer: Any, offset: Any) -> Any:
        """Return the LLVM pointer of a byte behind a pointer."""
        type = fx.PointerType.get(fx.Uint8.ir_type, address_space=fx.AddressSpace.Global, alignment=1)
        return fx.to_llvm_ptr(fx.inttoptr(type, fx.Int64(ptrtoint(pointer)) + offset))

    @flyc.kernel
    def tiled_product(x: fx.Pointer, weights: fx.Pointer, out: fx.Pointer, rows: fx.Int32):
        lane = fx.Int64(gpu.thread_id("x"))
        group, index = lane // 16, lane % 16
        row_tile, column_tile = fx.Int64(gpu.block_id("x")), fx.Int64(gpu.block_id("y"))
        eight, four = ir.VectorType.get([8], fx.BFloat16.ir_type), ir.VectorType.get([4], fx.Float32.ir_type)
        zero = ir.DenseElementsAttr.get_splat(four, ir.FloatAttr.get(fx.Float32.ir_type, 0.0))
        sums = arith.constant(four, zero)
        x_start = (row_tile * 16 + index) * (2 * K) + group * LANE_BYTES
        weight_start = column_tile * (TILE_BYTES * K // STEP) + lane * LANE_BYTES
        for step, state in range(0, K // STEP, 1, init=[sums]):
            at = fx.Int64(step)
            first = llvm.load(eight, place(x, x_start + at * (2 * STEP)))
            second = llvm.load(eight, place(weights, weight_start + at * TILE_BYTES))
            final = yield [fx.rocdl.mfma_f32_16x16x32_bf16(four, [first, second, state[0], 0, 0, 0])]
        for register in fx.range_constexpr(4):
            row = row_tile * 16 + group * 4 + register
            if fx.Int32(row) < rows:
                value = fx.Vector(final)[register]
                llvm.store(fx.arith.unwrap(value), place(out, (row * COLUMNS + column_tile * 16 + index) * 4))

    @flyc.jit
    def launch(x: fx.Pointer, weights: fx.Pointer, out: fx.Pointer, rows: fx.Int32, stream: fx.Stream):
        tiled_product(x, weights, out, rows).launch(
            grid=((fx.Int64(rows) + 15) // 16, COLUMNS // 16, 1), block=(64, 1, 1), stream=stream
        )

    return launch

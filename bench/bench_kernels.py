"""Benchmark of kernel prediction, with AITER's tables and larger ones.

Run `python bench/bench_kernels.py [CONFIGS_FOLDER]`; without a folder the tables of the installed amd-aiter are used,
repeated over made-up shapes up to the wanted number of rows.
"""

import csv
import io
import random
import sys
import time
from pathlib import Path

from preshuffle.registry.kernels import (
    DispatchCall,
    KernelTables,
    TableError,
    dispatch,
    packaged_families,
    reachable_buckets,
)
from preshuffle.registry.kernels.aiter_versions.dispatch_book import dispatch_book
from preshuffle.registry.kernels.tables.rows import KEY_COLUMNS, VALUE_COLUMNS, Row

COLUMNS = ("gfx", *KEY_COLUMNS, *VALUE_COLUMNS, "us", "run_1stage", "_tag")
WEIGHTS = {"torch.bfloat16": "bf16", "torch.int8": "i8", "torch.int4": "i4x2", "torch.float4_e2m1fn_x2": "fp4x2"}
CALLS = 4000
ROUNDS = 5


def seed_rows() -> list[Row]:
    if len(sys.argv) > 1:
        return list(KernelTables.load([Path(sys.argv[1])]).rows)
    return list(KernelTables.from_installed_aiter().rows)


def line(row: Row, model_dim: int) -> list[object]:
    key = [*row[2:4], model_dim, *row[5:15]]
    values = [row.block_m, row.ksplit, row.kernel1, row.kernel2]
    return [row.gfx, *key, *values, row.us, int(row.run_1stage), row.tag]


def table_of(rows: list[Row], count: int) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for index in range(count):
        row = rows[index % len(rows)]
        writer.writerow(line(row, row.model_dim + 256 * (index // len(rows))))
    return out.getvalue().encode()


def calls_for(rows: list[Row]) -> list[DispatchCall]:
    chosen = random.Random(7)
    calls = []
    for row in chosen.choices(rows, k=CALLS):
        calls.append(
            DispatchCall(
                gfx=row.gfx,
                cu_num=row.cu_num,
                tokens=chosen.randint(1, max(1, row.token)),
                model_dim=row.model_dim,
                inter_dim=row.inter_dim,
                expert=row.expert,
                topk=row.topk,
                activation=row.act_type.removeprefix("ActivationType."),
                weight_dtype=WEIGHTS.get(row.q_dtype_w, "fp8"),
                quant_type=row.q_type.removeprefix("QuantType."),
                doweight_stage1=bool(row.doweight_stage1),
            )
        )
    return calls


def rate(calls: list[DispatchCall], tables: KernelTables) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for call in calls:
            dispatch(call, tables)
        best = min(best, time.perf_counter() - start)
    return len(calls) / best


def main() -> None:
    try:
        rows = seed_rows()
    except TableError as error:
        sys.exit(str(error))
    calls = calls_for(rows)
    for count in (2_400, 100_000):
        data = table_of(rows, count)
        start = time.perf_counter()
        tables = KernelTables.from_bytes({"tuned_fmoe.csv": data})
        loaded = time.perf_counter()
        dispatch(calls[0], tables)
        indexed = time.perf_counter()
        speed = rate(calls, tables)
        print(
            f"{count:>7} rows: loaded in {1e3 * (loaded - start):.0f} ms, "
            f"indexed in {1e3 * (indexed - loaded):.0f} ms, "
            f"{speed:,.0f} predictions/s on one core"
        )
    start = time.perf_counter()
    for call in calls[:200]:
        reachable_buckets(call, tables)
    print(f"every token count of one call: {1e3 * (time.perf_counter() - start) / 200:.2f} ms")
    start = time.perf_counter()
    for _ in range(ROUNDS):
        dispatch_book.cache_clear()
        packaged_families.cache_clear()
        dispatch_book()
        packaged_families()
    print(f"the kernel part of the book: {1e3 * (time.perf_counter() - start) / ROUNDS:.0f} ms")


if __name__ == "__main__":
    main()

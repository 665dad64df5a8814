"""Operations between lanes; thread and block ids.

Operations without effect here are among them.
"""

import numpy as np

from preshuffle.layouts.emulator.mlir.operations import Operation, Run, compiles
from preshuffle.layouts.emulator.mlir.threads import LANES, Threads
from preshuffle.layouts.emulator.mlir.types import Array

WITHOUT_EFFECT = (
    *("rocdl.sched.barrier", "rocdl.sched.group.barrier", "rocdl.s.waitcnt", "rocdl.s.barrier", "rocdl.s.setprio"),
    *("rocdl.barrier", "llvm.fence", "llvm.intr.assume", "rocdl.s.barrier.signal", "rocdl.s.barrier.wait"),
    *("rocdl.s.nop", "rocdl.iglp.opt", "llvm.intr.dbg.value", "rocdl.s.sleep", "asm s_waitcnt"),
    *("llvm.amdgcn.s.waitcnt", "llvm.amdgcn.sched.barrier", "llvm.amdgcn.s.barrier", "llvm.amdgcn.s.setprio"),
    *("llvm.amdgcn.sched.group.barrier", "llvm.amdgcn.iglp.opt"),
)
"""Waits, barriers and hints: every operation here is complete for all threads when the next one begins."""

DIMENSIONS = "xyz"


@compiles(*WITHOUT_EFFECT)
def _nothing(operation: Operation) -> Run:
    if operation.parsed.results:
        raise operation.unmodelled("with a result")
    return lambda threads, *values: None


@compiles(*(f"rocdl.workgroup.id.{dimension}" for dimension in DIMENSIONS))
def _block_id(operation: Operation) -> Run:
    axis = DIMENSIONS.index(operation.label[-1])
    return lambda threads: threads.grid.ids[threads.block, axis]


@compiles(*(f"rocdl.workitem.id.{dimension}" for dimension in DIMENSIONS))
def _thread_id(operation: Operation) -> Run:
    axis = DIMENSIONS.index(operation.label[-1])

    def thread_id(threads: Threads) -> Array:
        below = int(np.prod(threads.grid.threads[:axis]))
        return threads.in_block // np.uint32(below) % np.uint32(threads.grid.threads[axis])

    return thread_id


@compiles(*(f"rocdl.grid.dim.{dimension}" for dimension in DIMENSIONS))
def _grid_size(operation: Operation) -> Run:
    axis, dtype = DIMENSIONS.index(operation.label[-1]), operation.result.dtype
    return lambda threads: np.array([threads.grid.blocks[axis]], dtype)


@compiles("call @__ockl_get_num_groups")
def _block_count(operation: Operation) -> Run:
    dtype = operation.result.dtype

    def block_count(threads: Threads, dimension: Array) -> Array:
        return np.array(threads.grid.blocks, dtype)[np.asarray(dimension).astype(np.intp)]

    return block_count


@compiles("rocdl.readfirstlane", "llvm.amdgcn.readfirstlane")
def _first_lane(operation: Operation) -> Run:
    return lambda threads, value: threads.everyone(value)[threads.first_active()]


@compiles("rocdl.readlane", "llvm.amdgcn.readlane")
def _lane(operation: Operation) -> Run:
    def read(threads: Threads, value: Array, lane: Array) -> Array:
        chosen = threads.everyone(lane)[threads.first_active()].astype(np.intp) % LANES
        return threads.everyone(value)[threads.first_lane + chosen]

    return read


@compiles("rocdl.ds_bpermute", "llvm.amdgcn.ds.bpermute")
def _permute(operation: Operation) -> Run:
    def permute(threads: Threads, index: Array, value: Array) -> Array:
        lane = threads.everyone(index).astype(np.int64) // 4 % LANES
        return threads.everyone(value)[threads.first_lane + lane]

    return permute


@compiles("rocdl.ds_swizzle")
def _swizzle(operation: Operation) -> Run:
    def swizzle(threads: Threads, value: Array, pattern: Array) -> Array:
        code = int(pattern.reshape(-1)[0])
        if code >> 15:
            raise operation.unmodelled("quad permutation")
        keep, force, flip = code & 31, code >> 5 & 31, code >> 10 & 31
        lane = threads.lane.astype(np.intp)
        source = lane & 32 | (lane & 31 & keep | force) ^ flip
        swizzled: Array = threads.everyone(value)[threads.first_lane + source]
        return swizzled

    return swizzle


@compiles("rocdl.mbcnt.lo", "llvm.amdgcn.mbcnt.lo")
def _count_low(operation: Operation) -> Run:
    return lambda threads, mask, base: _count_below(threads, mask, np.minimum(threads.lane, 32)) + base


@compiles("rocdl.mbcnt.hi", "llvm.amdgcn.mbcnt.hi")
def _count_high(operation: Operation) -> Run:
    return lambda threads, mask, base: _count_below(threads, mask, np.maximum(threads.lane, 32) - np.uint32(32)) + base


def _count_below(threads: Threads, mask: Array, lanes: Array) -> Array:
    """Count the bits of a mask below a lane."""
    below = (np.uint64(1) << lanes.astype(np.uint64)) - np.uint64(1)
    count: Array = np.bitwise_count(mask.astype(np.uint64) & below).astype(np.uint32)
    return count


@compiles("rocdl.update.dpp")
def _dpp(operation: Operation) -> Run:
    control, rows, banks = (operation.parsed.number(name) for name in ("dppCtrl", "rowMask", "bankMask"))
    zero_beyond = bool(operation.parsed.number("boundCtrl"))
    return lambda threads, old, value: moved(operation, threads, old, value, control, rows, banks, zero_beyond)


@compiles("llvm.amdgcn.update.dpp")
def _dpp_intrinsic(operation: Operation) -> Run:
    def run(threads: Threads, old: Array, value: Array, *flags: Array) -> Array:
        control, rows, banks, bound = (int(flag.reshape(-1)[0]) for flag in flags)
        return moved(operation, threads, old, value, control, rows, banks, bool(bound))

    return run


def moved(
    operation: Operation, threads: Threads, old: Array, value: Array, control: int, rows: int, banks: int, zero: bool
) -> Array:
    """Return values moved between lanes by a DPP control.

    Lanes of rows or banks that are off, or without a source lane, keep ``old`` (or get 0).
    """
    lane = threads.lane.astype(np.intp)
    source, valid = _dpp_source(operation, lane, control)
    enabled = (rows >> lane // 16 & 1 & banks >> lane % 16 // 4).astype(np.bool_)
    found = threads.everyone(value)[threads.first_lane + np.where(valid, source, lane)]
    otherwise = np.where(enabled & zero, found.dtype.type(0), threads.everyone(old))
    values: Array = np.where(enabled & valid, found, otherwise)
    return values


def _dpp_source(operation: Operation, lane: Array, control: int) -> tuple[Array, Array]:
    """Return the source lane of each lane and whether there is one."""
    shift, everywhere = control & 15, np.ones(len(lane), np.bool_)
    if control < 0x100:
        return lane & ~3 | control >> lane % 4 * 2 & 3, everywhere
    if 0x101 <= control <= 0x10F:
        return lane + shift, lane % 16 + shift < 16
    if 0x111 <= control <= 0x11F:
        return lane - shift, lane % 16 >= shift
    if 0x121 <= control <= 0x12F:
        return lane & ~15 | lane - shift & 15, everywhere
    if control == 0x140:
        return lane ^ 15, everywhere
    if control == 0x141:
        return lane ^ 7, everywhere
    if control == 0x142:
        return (lane & ~15) - 1, lane >= 16
    if control == 0x143:
        return (lane & ~31) - 1, lane >= 32
    raise operation.unmodelled(f"control {control:#x}")

"""Launch of a kernel in MLIR.

The host function computes the grid; blocks run in lock-step.

All threads of all blocks run one operation at a time. Where they part, of all blocks of code that a thread waits at,
the first of the text runs next, so that they meet again behind a loop or branch. Barriers and waits therefore have no
effect; schedule, caches and races are not modelled.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from preshuffle.layouts.emulator.errors import EmulatorError
from preshuffle.layouts.emulator.memory import GlobalMemory
from preshuffle.layouts.emulator.mlir import access, conversions, integers, lanes, matrix, numbers, vectors
from preshuffle.layouts.emulator.mlir.kernel import Block, Function, IrStep, KernelIr
from preshuffle.layouts.emulator.mlir.operations import compile_operation
from preshuffle.layouts.emulator.mlir.threads import LANES, Grid, Threads, merge
from preshuffle.layouts.emulator.mlir.types import Array, IrType, of_floats

OPERATIONS = (access, conversions, integers, lanes, matrix, numbers, vectors)
"""Modules that register the operations."""

THREADS_AT_ONCE = 8192
STEP_LIMIT = 2_000_000
Number = int | float


def launch_ir(kernel: KernelIr, memory: GlobalMemory, arguments: Sequence[Number]) -> int:
    """Run a kernel as its host function launches it.

    Returns the operations that ran.

    Args:
        kernel: the kernel and its host function.
        memory: all buffers that its arguments name; written in place.
        arguments: of the host function: addresses and numbers, without the stream.

    Raises:
        UnmodelledInstructionError: an operation is not modelled.
        MemoryAccessError: the kernel touched bytes that no buffer owns.
        EmulatorError: the arguments are not those of the function, or the kernel does not end.
    """
    with np.errstate(all="ignore"):
        blocks, threads, values = _launch_operands(kernel, memory, arguments)
        ids = np.stack(np.unravel_index(np.arange(int(np.prod(blocks))), blocks[::-1])[::-1], 1).astype(np.uint32)
        at_once = max(1, THREADS_AT_ONCE // int(np.prod(threads)))
        operations = 0
        for start in range(0, len(ids), at_once):
            grid = Grid(ids[start : start + at_once], blocks, threads)
            state = Threads(kernel.arch, grid, kernel.lds, kernel.lds_bytes, memory)
            operations += _run(kernel.device, state, values)
    return operations


def _launch_operands(
    kernel: KernelIr, memory: GlobalMemory, arguments: Sequence[Number]
) -> tuple[tuple[int, int, int], tuple[int, int, int], list[Any]]:
    """Run the host function up to the launch; return grid, block and the kernel's arguments."""
    host = kernel.host
    if not 0 <= len(host.arguments) - len(arguments) <= 1:  # the stream
        raise EmulatorError(
            f"{host.name} takes {len(host.arguments)} arguments with its stream, {len(arguments)} were given"
        )
    stream: list[Number] = [0] * (len(host.arguments) - len(arguments))
    values = [_argument(value, type) for value, type in zip([*arguments, *stream], host.arguments, strict=True)]
    alone = Threads(kernel.arch, Grid(np.zeros((1, 3), np.uint32), (1, 1, 1), (1, 1, 1)), {}, 0, memory)
    found = _Runner(host, alone, values).until_launch()
    sizes = [int(value.reshape(-1)[0]) for value in found[:6]]
    blocks, threads = (sizes[0], sizes[1], sizes[2]), (sizes[3], sizes[4], sizes[5])
    if int(np.prod(threads)) % LANES:
        raise EmulatorError(f"{kernel.name}: {threads} threads are not whole waves")
    return blocks, threads, list(found[6 : 6 + len(kernel.device.arguments)])


def _argument(value: Number, type: IrType) -> Array:
    if type.kind in ("float", "bf16"):
        return of_floats(np.array([value], np.float64), type)
    return np.array([int(value) & (1 << 64) - 1], np.uint64).astype(type.dtype)


def _run(function: Function, threads: Threads, arguments: list[Any]) -> int:
    runner = _Runner(function, threads, arguments)
    runner.run()
    return runner.steps


class _Runner:
    """Place of every thread in a function, and its values."""

    def __init__(self, function: Function, threads: Threads, arguments: list[Any]) -> None:
        self.function, self.threads = function, threads
        self.values: list[Any] = [None] * function.values
        for number, value in zip(function.blocks[0].arguments, arguments, strict=True):
            self.values[number] = value
        self.end = len(function.blocks)
        self.place = np.zeros(threads.count, np.int64)
        self.steps = 0

    def run(self) -> None:
        while (here := int(self.place.min())) != self.end:
            self._run_block(here)
            if self.steps > STEP_LIMIT:
                raise EmulatorError(f"{self.function.name} ran {STEP_LIMIT:,} operations without an end")

    def until_launch(self) -> list[Any]:
        """Run a host function without branches; return the operands of its launch."""
        for step in self.function.blocks[0].steps:
            if step.operation.name == "gpu.launch_func":
                return [self.values[number] for number in step.operands]
            self._run_step(step)
        raise EmulatorError(f"{self.function.name} launches behind a branch, which is not modelled")

    def _run_block(self, here: int) -> None:
        active = self.place == here
        self.threads.mask = None if active.all() else active
        block = self.function.blocks[here]
        for step in block.steps[:-1]:
            self._run_step(step)
        self.steps += len(block.steps)
        self._branch(block, active)

    def _run_step(self, step: IrStep) -> None:
        if step.run is None:
            step.run = compile_operation(step.operation)
        try:
            value = step.run(self.threads, *[self.values[number] for number in step.operands])
        except EmulatorError as error:
            error.add_note(f"at {step.operation.label}")
            raise
        if step.results:
            number = step.results[0]
            mask = self.threads.mask
            self.values[number] = value if mask is None else merge(self.values[number], value, mask)
        for number in step.free:
            self.values[number] = None

    def _branch(self, block: Block, active: Array) -> None:
        last = block.steps[-1]
        if last.operation.name == "llvm.return":
            self.place[active] = self.end
        elif last.operation.name == "llvm.br":
            self._pass(last.targets[0], [self.values[number] for number in last.operands], active)
        elif last.operation.name == "llvm.cond_br":
            _, first, _ = last.operation.parsed.numbers("operandSegmentSizes")
            taken = np.broadcast_to(self.values[last.operands[0]], active.shape)
            passed = last.operands[1 : 1 + first], last.operands[1 + first :]
            values = [[self.values[number] for number in numbers] for numbers in passed]
            for target, chosen, given in zip(last.targets, (active & taken, active & ~taken), values, strict=True):
                if chosen.any():
                    self._pass(target, given, chosen)
        else:
            raise last.operation.unmodelled("as the end of a block")

    def _pass(self, target: int, given: list[Any], chosen: Array) -> None:
        """Move threads to a block, with values for its arguments."""
        everyone = bool(chosen.all())
        for number, value in zip(self.function.blocks[target].arguments, given, strict=True):
            self.values[number] = value if everyone else merge(self.values[number], value, chosen)
        self.place[chosen] = target

"""Launch of a kernel: arguments, blocks, and waves that take turns.

Waves at the same place of the program run together. Where they part, each group runs a few instructions at a time, so
that kernels whose waves rely on a common pace instead of a barrier still work. A barrier holds a wave until all waves
of its block are there. Waits and hazards are not modelled: every instruction is complete when the next one begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from preshuffle.layouts.emulator.errors import EmulatorError
from preshuffle.layouts.emulator.isa.waves import LANES, BlockId, LaunchShape, Mask, Waves
from preshuffle.layouts.emulator.memory import GlobalMemory
from preshuffle.layouts.emulator.program import Program, StepKind

LDS_BYTES = {"gfx942": 64 * 1024, "gfx950": 160 * 1024}
QUANTUM = 8
WAVES_AT_ONCE = 128
INSTRUCTION_LIMIT = 2_000_000
"""Instructions of one wave after which a launch is given up as endless."""

RUNS, WAITS, ENDED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class LaunchResult:
    """Work that a launch did.

    Instructions are counted once for all waves that ran them together.
    """

    instructions: int
    waves: int


def launch(
    program: Program, memory: GlobalMemory, arguments: int, blocks: Sequence[BlockId], threads: int = 256
) -> LaunchResult:
    """Run blocks of a kernel to their end.

    Args:
        program: the kernel.
        memory: all buffers that its arguments name; written in place.
        arguments: address of the kernel's arguments.
        blocks: ids (x, y, z) of the blocks to run.
        threads: of a block; a multiple of 64.

    Raises:
        UnmodelledInstructionError: an instruction is not modelled.
        MemoryAccessError: the kernel touched bytes that no buffer owns.
        EmulatorError: the kernel does not end.
    """
    waves_per_block = threads // LANES
    at_once = max(1, WAVES_AT_ONCE // waves_per_block)
    instructions = 0
    for start in range(0, len(blocks), at_once):
        shape = LaunchShape(blocks[start : start + at_once], waves_per_block, LDS_BYTES[program.code.arch])
        waves = Waves(program.code.arch, shape, memory)
        _set_initial_registers(waves, program, arguments, shape)
        with np.errstate(all="ignore"):
            instructions += _Scheduler(program, waves).run()
    return LaunchResult(instructions, len(blocks) * waves_per_block)


def _set_initial_registers(waves: Waves, program: Program, arguments: int, shape: LaunchShape) -> None:
    descriptor = program.code.descriptor
    register = descriptor.argument_register
    waves.scalars[register] = arguments & 0xFFFFFFFF
    waves.scalars[register + 1] = arguments >> 32
    ids = np.array(shape.blocks, np.uint32)[waves.block_of_wave]
    register = descriptor.user_registers
    for dimension, enabled in enumerate(descriptor.block_ids):
        if enabled:
            waves.scalars[register] = ids[:, dimension]
            register += 1


class _Scheduler:
    """Program counters of all waves, and whose turn it is."""

    def __init__(self, program: Program, waves: Waves) -> None:
        self.program, self.waves = program, waves
        self.place = np.full(waves.count, program.code.descriptor.entry, np.int64)
        self.status = np.full(waves.count, RUNS, np.int8)
        self.last_turn = np.zeros(waves.count, np.int64)
        self.turn = 0
        self.instructions = 0

    def run(self) -> int:
        while (running := self.status == RUNS).any():
            self.turn += 1
            group, rivals = self._next_group(running)
            self.last_turn[group] = self.turn
            whole = bool(group.all())
            self.waves.run_only(None if whole else group)
            self._run_group(group, rivals)
            self._pass_barriers()
            if self.instructions > INSTRUCTION_LIMIT:
                raise EmulatorError(f"{self.program.code.name} ran {INSTRUCTION_LIMIT:,} instructions without an end")
        return self.instructions

    def _next_group(self, running: Mask) -> tuple[Mask, set[int]]:
        """Return the waves whose turn it is, all at one place, and the places of others that run."""
        chosen = int(np.where(running, self.last_turn, np.iinfo(np.int64).max).argmin())
        place = self.place[chosen]
        group = running & (self.place == place)
        return group, set(self.place[running & ~group].tolist())

    def _run_group(self, group: Mask, rivals: set[int]) -> None:
        """Run waves from their common place until they part, wait, end, meet others, or their turn is over."""
        waves, step_at = self.waves, self.program.step
        place = int(self.place[group.argmax()])
        budget = QUANTUM if rivals else INSTRUCTION_LIMIT
        while budget > 0:
            step = step_at(place)
            self.instructions += 1
            budget -= 1
            if step.run is not None:
                if step.kind is StepKind.SCALAR or not waves.skips:
                    try:
                        step.run(waves)
                    except EmulatorError as error:
                        error.add_note(f"at {step.instruction}")
                        raise
                place = step.following
            elif step.taken is not None:
                taken = step.taken(waves)
                if not taken[group].all():
                    if taken[group].any():
                        self.place[group] = np.where(taken[group], step.target, step.following)
                        return
                    place = step.following
                else:
                    place = step.target
            else:
                self.place[group] = step.following
                self.status[group] = WAITS if step.kind is StepKind.BARRIER else ENDED
                return
            if rivals and place in rivals:
                break
        self.place[group] = place

    def _pass_barriers(self) -> None:
        waiting = self.status == WAITS
        if not waiting.any():
            return
        blocks = self.waves.block_of_wave
        held_up = np.bincount(blocks, self.status == RUNS, blocks.max() + 1) > 0
        self.status[waiting & ~held_up[blocks]] = RUNS

"""Registers of all waves of a launch, and masks of active lanes.

A scalar register is a row of one word per wave, a vector register a row of 64 lanes per wave. One instruction runs for
all waves at the same place of the program at once; the masks say whose registers it changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.emulator.memory import GlobalMemory

LANES = 64
VCC, M0, EXEC = 106, 124, 126
SCALAR_REGISTERS = 128
VECTOR_REGISTERS = 512  # 256 and their 256 accumulation registers
LANE_BITS = np.uint64(1) << np.arange(LANES, dtype=np.uint64)
LOW_WORD = np.uint64(0xFFFFFFFF)

Words = NDArray[np.uint32]
Longs = NDArray[np.uint64]
Mask = NDArray[np.bool_]
BlockId = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class LaunchShape:
    """Blocks of a launch and the waves of each."""

    blocks: Sequence[BlockId]
    waves_per_block: int
    lds_bytes: int


class Waves:
    """State of all waves of a launch."""

    def __init__(self, arch: str, shape: LaunchShape, memory: GlobalMemory) -> None:
        """Make zeroed registers and local memory; all lanes on."""
        self.arch = arch
        self.memory = memory
        self.count = len(shape.blocks) * shape.waves_per_block
        self.block_of_wave = np.arange(self.count) // shape.waves_per_block
        self.scalars = np.zeros((SCALAR_REGISTERS, self.count), np.uint32)
        self.vectors = np.zeros((VECTOR_REGISTERS, self.count, LANES), np.uint32)
        self.scc = np.zeros(self.count, np.bool_)
        self.lds_bytes = shape.lds_bytes
        self.lds = np.zeros(len(shape.blocks) * shape.lds_bytes, np.uint8)
        self.lds_start = (self.block_of_wave * shape.lds_bytes)[:, None]
        self.skips_vectors = np.zeros(self.count, np.bool_)
        self.running: Mask | None = None  # waves that run now; None: all
        self.scalars[EXEC : EXEC + 2] = 0xFFFFFFFF
        self.vectors[0] = np.arange(self.count)[:, None] % shape.waves_per_block * LANES + np.arange(LANES)
        self.lanes: Mask | None = None  # lanes that vector instructions change; None: all
        self.vector_waves: Mask | None = None  # waves that run vector instructions; None: all
        self.refresh_masks()

    def run_only(self, waves: Mask | None) -> None:
        """Let the next instructions run for these waves only."""
        self.running = waves
        self.refresh_masks()

    def refresh_masks(self) -> None:
        """Recompute the masks after EXEC or the running waves changed."""
        waves = self.running
        if self.skips_vectors.any():
            waves = ~self.skips_vectors if waves is None else waves & ~self.skips_vectors
        self.vector_waves = waves
        low, high = self.scalars[EXEC], self.scalars[EXEC + 1]
        if (low & high == 0xFFFFFFFF).all():
            self.lanes = None if waves is None else np.repeat(waves[:, None], LANES, 1)
            return
        lanes = lane_mask(self.long(EXEC))
        self.lanes = lanes if waves is None else lanes & waves[:, None]

    @property
    def skips(self) -> bool:
        """Whether no running wave executes vector instructions."""
        return self.vector_waves is not None and not self.vector_waves.any()

    def long(self, register: int) -> Longs:
        """Return a pair of scalar registers as 64-bit words."""
        low, high = self.scalars[register].astype(np.uint64), self.scalars[register + 1].astype(np.uint64)
        both: Longs = low | high << np.uint64(32)
        return both

    def set_scalar(self, register: int, value: Words) -> None:
        """Write a scalar register of the running waves."""
        _assign(self.scalars[register], value, self.running)
        if register in (EXEC, EXEC + 1):
            self.refresh_masks()

    def set_long(self, register: int, value: Longs) -> None:
        """Write a pair of scalar registers of the running waves."""
        _assign(self.scalars[register], (value & LOW_WORD).astype(np.uint32), self.running)
        _assign(self.scalars[register + 1], (value >> np.uint64(32)).astype(np.uint32), self.running)
        if register == EXEC:
            self.refresh_masks()

    def set_scc(self, value: Mask) -> None:
        """Write the scalar condition code of the running waves."""
        _assign(self.scc, value, self.running)

    def set_vector(self, register: int, value: Words) -> None:
        """Write a vector register in the lanes that are on."""
        _assign(self.vectors[register], value, self.lanes)

    def set_lane_bits(self, register: int, lanes: Mask) -> None:
        """Write a comparison's result to a pair of scalar registers.

        Lanes that are off get 0.
        """
        bits = lane_words(lanes if self.lanes is None else lanes & self.lanes)
        waves = self.vector_waves
        _assign(self.scalars[register], (bits & LOW_WORD).astype(np.uint32), waves)
        _assign(self.scalars[register + 1], (bits >> np.uint64(32)).astype(np.uint32), waves)
        if register == EXEC:
            self.refresh_masks()

    def set_scalar_from_vector(self, register: int, value: Words) -> None:
        """Write a scalar register by a vector instruction.

        Waves that skip vector instructions keep theirs.
        """
        _assign(self.scalars[register], value, self.vector_waves)

    def active(self) -> tuple[NDArray[np.intp], NDArray[np.intp]] | None:
        """Return indices of active waves and lanes; None for all."""
        if self.lanes is None:
            return None
        waves, lanes = np.nonzero(self.lanes)
        return waves, lanes


def lane_mask(words: Longs) -> Mask:
    """Return which lanes 64-bit words have on; shape (waves, 64)."""
    lanes: Mask = (words[:, None] & LANE_BITS) != 0
    return lanes


def lane_words(lanes: Mask) -> Longs:
    """Return the 64-bit word of each wave's lanes."""
    packed = np.packbits(lanes, axis=1, bitorder="little")
    return np.ascontiguousarray(packed).view(np.uint64)[:, 0]


def _assign(target: NDArray[np.generic], value: NDArray[np.generic], where: Mask | None) -> None:
    if where is None:
        target[...] = value
    else:
        np.copyto(target, value, where=where)

"""Addresses that a kernel reads, from runs on tagged tensors.

Every token activates one k of one expert, so that an output column of stage 1 is ``silu(gate) up`` of two weights. In
each run every element of the tensor in question holds a level chosen by some bits of its own position in memory, and
the output tells which levels met. As many runs as it takes to read all bits give the positions of both, and no layout
is assumed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.derive.kernels.activations import ALONE, combine
from preshuffle.layouts.derive.kernels.weight_formats import Floats, Levels

Positions = NDArray[np.int64]
Write = Callable[[NDArray[np.int64]], None]
"""Write the tagged tensor: each element the level of that number."""

UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class AddressMap:
    """Position in memory of every element that a kernel reads.

    Attributes:
        positions: ``[experts, rows, k]`` in elements; -1 where the output fitted no pair of levels.
        shared: whether several elements of the layer may have one position, as scales of blocks do.
    """

    positions: Positions
    shared: bool = False

    @property
    def derived(self) -> int:
        """Elements whose position is known."""
        return int((self.positions != UNKNOWN).sum())

    @property
    def conflicts(self) -> int:
        """Elements without a position, or at the position of another."""
        known = self.positions[self.positions != UNKNOWN]
        repeated = 0 if self.shared else len(known) - len(np.unique(known))
        return self.positions.size - len(known) + repeated


def one_hot_tokens(experts: int, probes: range, k: int) -> NDArray[np.bool_]:
    """Return which k each token activates: token ``e len(probes) + i`` activates ``probes[i]``."""
    chosen = np.zeros((experts * len(probes), k), np.bool_)
    chosen[np.arange(len(chosen)), np.tile(np.asarray(probes), experts)] = True
    return chosen


@dataclass(frozen=True, slots=True)
class OutputTable:
    """Outputs that levels give, sorted, and the levels behind each.

    Attributes:
        outputs: ascending.
        digits: for each output the number of the level of every element behind it.
        bits: of a digit.
        tolerance: relative distance at which an output still counts as one of these.
    """

    outputs: Floats
    digits: tuple[Positions, ...]
    bits: int
    tolerance: float

    @staticmethod
    def of_pairs(levels: Levels, activation: str = "silu") -> "OutputTable":
        """Return the table of gate and up combined, as in ``silu(gate) up``."""
        values, numbers = levels.products, np.arange(len(levels.weights))
        outputs = combine(values[:, None], values[None, :], activation).reshape(-1)
        first, second = (part.reshape(-1) for part in np.meshgrid(numbers, numbers, indexing="ij"))
        return OutputTable._sorted(outputs, (first, second), levels)

    @staticmethod
    def of_gates(levels: Levels, activation: str = "silu") -> "OutputTable":
        """Return the table of ``silu(gate)``, for kernels without up rows."""
        return OutputTable._sorted(ALONE[activation](levels.products), (np.arange(len(levels.weights)),), levels)

    @staticmethod
    def of_values(levels: Levels, factor: float) -> "OutputTable":
        """Return the table of ``factor weight``."""
        return OutputTable._sorted(levels.products * factor, (np.arange(len(levels.weights)),), levels)

    @staticmethod
    def _sorted(outputs: Floats, digits: tuple[Positions, ...], levels: Levels) -> "OutputTable":
        order = np.argsort(outputs)
        ascending = outputs[order]
        larger = np.maximum(np.abs(ascending[1:]), np.abs(ascending[:-1]))
        tolerance = levels.tolerance or float((np.diff(ascending) / larger).min()) / 3
        return OutputTable(ascending, tuple(digit[order] for digit in digits), levels.bits, tolerance)

    def read(self, found: Floats) -> tuple[list[Positions], NDArray[np.bool_]]:
        """Return the digits behind each output, and whether it is clear."""
        above = np.clip(np.searchsorted(self.outputs, found), 1, len(self.outputs) - 1)
        nearer_below = found - self.outputs[above - 1] < self.outputs[above] - found
        nearest = np.where(nearer_below, above - 1, above)
        clear = np.abs(found - self.outputs[nearest]) <= self.tolerance * np.abs(self.outputs[nearest])
        return [digit[nearest] for digit in self.digits], clear


def read_positions(run: Callable[[], Floats], write: Write, elements: int, table: OutputTable) -> list[Positions]:
    """Return the positions of the elements behind every output, gate before up.

    Args:
        run: runs the kernel; its output's shape is that of each result.
        write: writes the tagged tensor.
        elements: of the tagged tensor.
        table: what outputs mean.
    """
    numbers = np.arange(elements)
    found: list[Positions] = []
    clear = np.ones(1, np.bool_)
    for shift in range(0, max(1, (elements - 1).bit_length()), table.bits):
        write(numbers >> shift & (1 << table.bits) - 1)
        digits, near = table.read(run())
        clear = clear & near
        found = (
            [digit << shift for digit in digits]
            if not found
            else [positions | digit << shift for positions, digit in zip(found, digits, strict=True)]
        )
    return [np.where(clear & (positions < elements), positions, UNKNOWN) for positions in found]

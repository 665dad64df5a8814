"""Einops line of an address map, where one describes it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from preshuffle.layouts.derive.kernels.placement import addresses_in, fits
from preshuffle.layouts.derive.tagging import UNKNOWN, Positions
from preshuffle.registry import Layout, LayoutError

ROW_NAMES, K_NAMES = "nrst", "kjlw"


@dataclass(frozen=True, slots=True)
class _Axis:
    """Axis of memory: its name in the line, its size and its stride."""

    name: str
    size: int
    stride: int


def pattern_of(addresses: Positions, unit: Literal["byte", "group"], gated: bool) -> str | None:
    """Return the line that gives these addresses, or None.

    Args:
        addresses: ``[experts, rows, K]``, in bytes of a weight or groups of scales, none unknown.
        unit: what K counts.
        gated: whether the first half of the rows are gate, the second up.
    """
    line = _line(addresses, gated)
    if line is None:
        return None
    try:
        layout = Layout.of("derived", line, unit)
    except LayoutError:
        return None
    return line if is_layout_of(layout, addresses) else None


def is_layout_of(layout: Layout, addresses: Positions) -> bool:
    """Return whether a layout puts every unit where an address map says."""
    experts, rows, k = addresses.shape
    shape = (experts, rows, k)
    return fits(layout, shape) and bool((addresses_in(layout, shape) == addresses).all())


def _line(addresses: Positions, gated: bool) -> str | None:
    """Return the line of an address map that is a sum of steps along experts, rows and K."""
    if (addresses == UNKNOWN).any() or addresses[0, 0, 0]:
        return None
    experts, rows, k = addresses[:, 0, 0], addresses[0, :, 0], addresses[0, 0, :]
    if (experts[:, None, None] + rows[None, :, None] + k[None, None, :] != addresses).any():
        return None
    expert_axes, row_axes, k_axes = _steps(experts, "e", addresses.size), _row_steps(rows, gated), _steps(k, K_NAMES)
    if expert_axes is None or row_axes is None or k_axes is None:
        return None
    in_memory = sorted([*expert_axes, *row_axes, *k_axes], key=lambda axis: -axis.stride)
    logical = " ".join(_group(axes) for axes in (expert_axes, row_axes, k_axes))
    return f"{logical} -> {' '.join(axis.name for axis in in_memory)}"


def _group(axes: list[_Axis]) -> str:
    names = [axis.name for axis in reversed(axes)]
    return names[0] if len(names) == 1 else f"({' '.join(names)})"


def _row_steps(rows: Positions, gated: bool) -> list[_Axis] | None:
    """Return the axes of rows, with a gate/up axis where up rows do not simply follow."""
    half = len(rows) // 2
    if not gated or (rows[half:] != rows[half] + rows[:half]).any():
        return _steps(rows, ROW_NAMES)
    whole, part = _steps(rows, ROW_NAMES), _steps(rows[:half], ROW_NAMES)
    if whole is not None and part is not None and len(whole) == len(part):
        return whole
    return None if part is None else [*part, _Axis("g", 2, int(rows[half]))]


def _steps(values: Positions, names: str, single: int = 1) -> list[_Axis] | None:
    """Split a function of one index into axes, innermost first; None where it is no sum of steps.

    An axis of size 1 has the stride ``single``.
    """
    steps: list[tuple[int, int]] = []
    while len(values) > 1:
        stride = int(values[1])
        straight = int((values == np.arange(len(values)) * stride).cumprod().sum())
        size = max(part for part in range(1, straight + 1) if len(values) % part == 0)
        outer = values[::size]
        if size == 1 or stride <= 0 or (outer[:, None] + np.arange(size) * stride != values.reshape(-1, size)).any():
            return None
        steps.append((size, stride))
        values = outer
    if not steps:
        return [_Axis(names[0], 1, single)]
    inner = [_Axis(f"{names[index % len(names)]}{size}", size, stride) for index, (size, stride) in enumerate(steps)]
    outermost = names[0] if len(steps) == 1 else f"{names[0]}t"
    return [*inner[:-1], _Axis(outermost, *steps[-1])]

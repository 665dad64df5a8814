"""Placement of tensors in memory, as a layout of the book says."""

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.derive.kernels.weight_formats import Bytes, Codes, WeightFormat
from preshuffle.registry import Layout, LayoutError

Order = NDArray[np.int64]


def memory_order(layout: Layout, shape: tuple[int, int, int]) -> Order:
    """Return for each address the row-major position of what lies there.

    Raises:
        LayoutError: the layout does not fit the shape.
    """
    order = np.zeros(1, np.int64)
    for mode in layout.bind(*shape).permutation.modes:
        order = (order[:, None] + np.arange(mode.size) * mode.stride).reshape(-1)
    return order


def addresses_in(layout: Layout, shape: tuple[int, int, int]) -> Order:
    """Return the address of each unit, shape ``[experts, rows, K]``."""
    order = memory_order(layout, shape)
    addresses = np.empty_like(order)
    addresses[order] = np.arange(len(order))
    return addresses.reshape(shape)


def place(tensor: NDArray[np.uint8], layout: Layout) -> Bytes:
    """Return a byte tensor ``[experts, rows, K]`` as it lies in memory."""
    experts, rows, k = tensor.shape
    placed: Bytes = tensor.reshape(-1)[memory_order(layout, (experts, rows, k))]
    return placed


def place_codes(codes: Codes, number_format: WeightFormat, layout: Layout) -> Bytes:
    """Return weights ``[experts, rows, K]`` of codes as they lie in memory."""
    return number_format.pack_units(place(number_format.unit_bytes(codes), layout))


def fits(layout: Layout, shape: tuple[int, int, int]) -> bool:
    """Return whether a layout can be bound to a shape."""
    try:
        layout.bind(*shape)
    except LayoutError:
        return False
    return True

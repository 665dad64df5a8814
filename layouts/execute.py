"""Running copy plans with torch: strided copies of the widest unit that both sides allow."""

from __future__ import annotations

from collections.abc import Iterable
from math import gcd
from typing import Final, Literal

import torch

from preshuffle.registry.plan import Box, CopyPlan

_UNITS: Final[dict[int, torch.dtype]] = {
    16: torch.complex128,
    8: torch.int64,
    4: torch.int32,
    2: torch.int16,
    1: torch.uint8,
}
Side = Literal["plain", "laid"]


def lay_out(plan: CopyPlan, plain: torch.Tensor, laid: torch.Tensor, fill: int) -> None:
    """Copy plain bytes to where they belong and fill the pads.

    Args:
        plan: what goes where.
        plain: flat uint8 bytes, the source.
        laid: flat uint8 bytes, the target; must not overlap ``plain``.
        fill: the byte that pads get.
    """
    for box in plan.copies:
        _copy(box, plain, laid, "laid")
    for box in plan.fills:
        _strided(laid, box.sizes, box.laid_strides, box.laid_offset, _fill_unit(box, laid)).fill_(
            _repeated(fill, _fill_unit(box, laid))
        )


def take_back(plan: CopyPlan, laid: torch.Tensor, plain: torch.Tensor) -> None:
    """Copy laid-out bytes back to plain; pads are left behind."""
    for box in plan.copies:
        _copy(box, plain, laid, "plain")


def unit_of(box: Box, bases: Iterable[torch.Tensor]) -> int:
    """Return the widest unit, in bytes, in which a box can be moved between byte tensors."""
    unit = gcd(16, box.run)
    strides = [*box.plain_strides[:-1], *box.laid_strides[:-1]] if box.run > 1 else []
    for number in (*strides, box.plain_offset, box.laid_offset):
        unit = gcd(unit, number)
    for base in bases:
        unit = gcd(unit, gcd(base.storage_offset(), base.data_ptr()) or 16)
    return unit


def _copy(box: Box, plain: torch.Tensor, laid: torch.Tensor, target: Side) -> None:
    unit = unit_of(box, (plain, laid))
    source = _strided(plain, box.sizes, box.plain_strides, box.plain_offset, unit)
    sink = _strided(laid, box.sizes, box.laid_strides, box.laid_offset, unit)
    if target == "plain":
        source, sink = sink, source
    sink.copy_(source)


def _strided(
    base: torch.Tensor, sizes: tuple[int, ...], strides: tuple[int, ...], offset: int, unit: int
) -> torch.Tensor:
    """View bytes as units; the innermost run of a box becomes ``run / unit`` elements."""
    wide = base[: base.numel() // unit * unit].view(_UNITS[unit]) if unit > 1 else base
    if unit > 1:
        sizes = (*sizes[:-1], sizes[-1] // unit)
        strides = (*(stride // unit for stride in strides[:-1]), 1)
    return wide.as_strided(sizes, strides, wide.storage_offset() + offset // unit)


def _fill_unit(box: Box, laid: torch.Tensor) -> int:
    """The widest integer unit of a fill (there is no 16-byte integer)."""
    if not box.laid_strides or box.laid_strides[-1] != 1:
        return 1
    unit = gcd(8, box.sizes[-1])
    for number in (*box.laid_strides[:-1], box.laid_offset, laid.storage_offset(), laid.data_ptr()):
        unit = gcd(unit, number)
    return unit


def _repeated(fill: int, unit: int) -> int:
    return int.from_bytes(bytes([fill]) * unit, "little", signed=unit > 1)

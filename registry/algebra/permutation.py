"""Permutation: CuTe's layout algebra, restricted to bijections: coalesce, compose, inverse.

A permutation of ``n`` elements is a list of modes ``(size, stride)``, outermost first, in memory order. The element at
memory address ``d`` is the element ``source(d)`` of the logical (row-major) tensor, where the digits of ``d`` in the
mixed radix of the sizes are multiplied by the strides. Everything here is exact integer arithmetic on a handful of
numbers, however large the tensor is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from preshuffle.registry.base.errors import LayoutError


class Mode(NamedTuple):
    """One digit of an address: size, and stride in the logical tensor."""

    size: int
    stride: int


@dataclass(frozen=True, slots=True)
class Permutation:
    """Bijection from memory addresses to logical positions, in coalesced form.

    Coalescing leaves one form for each bijection, so two permutations are equal exactly if they move every element to
    the same place. ``str`` writes it as CuTe does, ``(sizes):(strides)``.

    Example:
        >>> str(Permutation.coalesce([(2, 1), (3, 2)]))
        '(2,3):(1,2)'
    """

    modes: tuple[Mode, ...]

    def __str__(self) -> str:
        """Return ``(sizes):(strides)``, outermost first."""
        sizes, strides = zip(*self.modes, strict=True) if self.modes else ((1,), (0,))
        return f"({','.join(map(str, sizes))}):({','.join(map(str, strides))})"

    @staticmethod
    def coalesce(modes: Iterable[tuple[int, int]]) -> Permutation:
        """Build the canonical form: drop modes of size 1, merge contiguous neighbours."""
        merged: list[Mode] = []
        for size, stride in modes:
            if size == 1:
                continue
            if merged and merged[-1].stride == size * stride:
                merged[-1] = Mode(merged[-1].size * size, stride)
            else:
                merged.append(Mode(size, stride))
        return Permutation(tuple(merged))

    @staticmethod
    def identity(count: int) -> Permutation:
        """Return the identity permutation of ``count`` elements."""
        return Permutation.coalesce([(count, 1)])

    @property
    def count(self) -> int:
        """Number of elements (CuTe's ``size``)."""
        return prod(mode.size for mode in self.modes)

    def source(self, address: int) -> int:
        """Return the logical position of the element at a memory address."""
        if not 0 <= address < self.count:
            raise LayoutError(f"address {address} is outside 0..{self.count - 1}")
        position = 0
        for size, stride in reversed(self.modes):
            address, digit = divmod(address, size)
            position += digit * stride
        return position

    def address(self, position: int) -> int:
        """Return the memory address of a logical position.

        This is the closed form that kernels compute.
        """
        return self.inverse().source(position)

    def inverse(self) -> Permutation:
        """Return the inverse, from logical positions to memory addresses.

        Raises:
            LayoutError: the modes are not a bijection.
        """
        address_stride = 1
        places: list[tuple[Mode, int]] = []
        for mode in reversed(self.modes):
            places.append((mode, address_stride))
            address_stride *= mode.size
        places.sort(key=lambda place: place[0].stride, reverse=True)
        expected = 1
        for mode, _ in reversed(places):
            if mode.stride != expected:
                raise LayoutError(f"not a bijection: stride {mode.stride} where {expected} is needed")
            expected *= mode.size
        return Permutation.coalesce((mode.size, stride) for mode, stride in places)

    def compose(self, other: Permutation) -> Permutation:
        """Return the composition: its ``source(d)`` is ``self.source(other.source(d))``.

        It is the one pass that equals laying bytes out by this permutation, and the laid-out bytes by ``other``.

        Raises:
            LayoutError: the counts differ, or the tiles cut each other so that no mixed radix describes the result.
        """
        if self.count != other.count:
            raise LayoutError(f"cannot compose permutations of {self.count} and {other.count} elements")
        return Permutation.coalesce(piece for mode in other.modes for piece in _compose_mode(self.modes, mode))


def _compose_mode(modes: tuple[Mode, ...], mode: Mode) -> list[Mode]:
    """Compose ``modes`` with one mode over their addresses."""
    size, step = mode
    pieces: list[Mode] = []
    for inner in reversed(modes):
        if size == 1:
            break
        if step >= inner.size:
            if step % inner.size:
                raise LayoutError(f"tiles of {step} and {inner.size} elements cut each other")
            step //= inner.size
            continue
        if inner.size % step:
            raise LayoutError(f"tiles of {step} and {inner.size} elements cut each other")
        take = min(size, inner.size // step)
        if size % take or (inner.size // step) % take:
            raise LayoutError(f"tiles of {size} and {inner.size // step} elements cut each other")
        pieces.append(Mode(take, inner.stride * step))
        size //= take
        step = 1
    if size != 1:
        raise LayoutError("a mode runs past the last element")
    return pieces[::-1]

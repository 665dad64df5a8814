"""Tensors of a layer as they lie in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from preshuffle.registry.algebra.layout import Layout
from preshuffle.registry.base.errors import LayoutError
from preshuffle.registry.base.words import Role
from preshuffle.registry.loading import Book
from preshuffle.registry.values.observation import Applied, TensorObservation

WEIGHTS: tuple[Role, ...] = ("w13_weight", "w2_weight")
SCALES: dict[Role, Role] = {"w13_weight_scale": "w13_weight", "w2_weight_scale": "w2_weight"}
_DTYPES = ("bf16", "fp16", "fp4x2", "i4x2", "i8")


@dataclass(frozen=True, slots=True)
class ObservedTensor:
    """One tensor of a deployment, as reported.

    Attributes:
        observation: what was reported of it.
        layout: the book's layout; None where it is not known, or the book has none of that name.
    """

    role: Role
    observation: TensorObservation
    layout: Layout | None

    @property
    def plain(self) -> bool:
        """Whether the bytes are known to be plain."""
        return self.layout is not None and self.layout.id == "plain"

    @property
    def laid_out(self) -> bool:
        """Whether the bytes are known to be laid out."""
        return self.layout is not None and self.layout.id != "plain"

    @property
    def tiled(self) -> bool:
        """Whether the bytes are known to lie in tiles."""
        return self.layout is not None and self.layout.unit != "any"

    def padded(self, axis: int) -> int | None:
        """Return the padding along an axis of ``[experts, rows, K]``.

        Physical minus logical size; None where it is not known.
        """
        logical, physical = self.observation.logical_shape, self.observation.physical_shape
        if logical is None or physical is None or len(logical) != len(physical) or len(logical) <= axis:
            return None
        return physical[axis] - logical[axis]

    def physical(self, axis: int) -> int | None:
        """Return a physical size of ``[experts, rows, K]``.

        None where it is not known.
        """
        shape = self.observation.physical_shape
        return shape[axis] if shape is not None and len(shape) == 3 else None

    def logical(self, axis: int) -> int | None:
        """Return a size without padding of ``[experts, rows, K]``.

        None where it is not known.
        """
        shape = self.observation.logical_shape
        return shape[axis] if shape is not None and len(shape) == 3 else None


def observed_tensors(applied: Applied, book: Book) -> Mapping[Role, ObservedTensor]:
    """Return the reported tensors by role, with the book's layouts.

    A scale's physical shape is ``[experts, rows, K]``, whichever shape of it was reported.
    """
    known = book.known_layouts
    tensors: dict[Role, ObservedTensor] = {}
    for role, tensor in applied.tensors.items():
        layout = book.layout(tensor.layout) if tensor.layout in known else None
        shape = tensor.physical_shape or tensor.passed_shape
        if shape is not None and role in SCALES:
            shape = _by_expert(shape, tensor, applied.tensors.get(SCALES[role]), book)
        if shape != tensor.physical_shape:
            tensor = tensor.model_copy(update={"physical_shape": shape})
        tensors[role] = ObservedTensor(role, tensor, layout)
    return tensors


def _by_expert(
    shape: tuple[int, ...], scale: TensorObservation, weight: TensorObservation | None, book: Book
) -> tuple[int, ...]:
    """Return ``[experts, rows, K]`` of a scale that was reported as its kernel gets it.

    Its weight, or its own size before padding, tells the experts; a buffer that is padded at its tail stays as it is.
    """
    known = [weight.physical_shape, weight.logical_shape] if weight else []
    for sizes in (*known, scale.logical_shape):
        if sizes is None or len(sizes) != 3:
            continue
        experts, rows, _ = sizes
        if len(shape) == 2 and shape[0] == experts * rows:
            return experts, rows, shape[1]
        if len(shape) == 3 and shape[0] == experts and shape[1] < rows:
            for tile in book.passed_tiles:
                if shape[1] * tile == rows and shape[2] % tile == 0:
                    return experts, rows, shape[2] // tile
    return shape


def weight_dtype_of(applied: Applied) -> str | None:
    """Return the dtype of loaded weights, as a query names it.

    None where it was not reported, or bytes of no type (uint8) hold it.
    """
    weights = (applied.tensors.get(role) for role in WEIGHTS)
    dtype = next((weight.dtype for weight in weights if weight is not None and weight.dtype is not None), None)
    if dtype is None or dtype == "uint8":
        return None
    return "fp8" if dtype.startswith("fp8") else dtype if dtype in _DTYPES else None


def same_bytes(
    book: Book, first: str, second: str, shape: tuple[int, ...] | None = None, bits: int | None = None
) -> bool:
    """Return whether two layouts give the same bytes on a shape.

    The permutations are compared, not the names. Where the shape is unknown or does not divide, a shape is taken that
    every layout divides.

    Args:
        book: whose layouts they are.
        first: a layout, or an alias.
        second: another one.
        shape: ``[experts, rows, K]``, K in values, or of a scale with a padded tail ``[experts * rows, K]``.
        bits: of one value; None where K counts bytes, or groups.
    """
    if first == second:
        return True
    if not {first, second} <= book.known_layouts:
        return False
    left, right = book.layout(first), book.layout(second)
    if left.id == right.id:
        return True
    unit = left.unit if left.unit != "any" else right.unit
    if shape is not None:
        experts, rows, k = (1, *shape) if unit == "group" and len(shape) == 2 else (*shape, 1)[:3]
        width = k * bits // 8 if bits and unit == "byte" else k
        if _equal_on(left, right, (experts, rows, width)):
            return True
    return _equal_on(left, right, _DIVISIBLE_SHAPES[unit])


_DIVISIBLE_SHAPES = {"byte": (2, 1024, 1024), "group": (2, 1024, 64), "any": (2, 1024, 1024)}
"""Shapes that every layout divides."""


def _equal_on(first: Layout, second: Layout, shape: tuple[int, int, int]) -> bool:
    try:
        return first.bind(*shape).permutation == second.bind(*shape).permutation
    except LayoutError:
        return False


def either_of(values: Iterable[str]) -> str:
    """Return ``a or b or c``."""
    return " or ".join(dict.fromkeys(values))

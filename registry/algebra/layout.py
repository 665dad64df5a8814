"""Layout: byte order of a tensor, apart from its shape."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal, cast, get_args

from preshuffle.registry.algebra.pattern import Pattern, fixed_size
from preshuffle.registry.algebra.permutation import Permutation
from preshuffle.registry.base.errors import LayoutError
from preshuffle.registry.base.words import GateMode

Unit = Literal["byte", "group", "any"]


@dataclass(frozen=True, slots=True)
class Atom:
    """One axis of a bound layout: its dimension, size and step."""

    name: str
    dimension: Literal["experts", "rows", "k"]
    size: int
    step: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A byte order for expert weights or scales.

    Attributes:
        id: the layout's name in the book.
        pattern: the parsed line.
        unit: what K counts: ``byte`` (weights), ``group`` (one scale of one byte), ``any`` (whatever the tensor holds).
        k_multiple: K must be a multiple of this many units; at least the pattern's own tile.
    """

    id: str
    pattern: Pattern
    unit: Unit = "any"
    k_multiple: int = 1

    @staticmethod
    def of(id: str, pattern: str, unit: Unit = "any", k_multiple: int | None = None) -> Layout:
        """Parse a layout from its line.

        Raises:
            LayoutError: the pattern is wrong, or ``k_multiple`` is not a multiple of the pattern's K tile.
        """
        parsed = Pattern.parse(pattern)
        multiple = k_multiple or parsed.k_tile
        if multiple % parsed.k_tile:
            raise LayoutError(f"k_multiple {multiple} is not a multiple of the pattern's K tile {parsed.k_tile}")
        return Layout(id, parsed, unit, multiple)

    @property
    def line(self) -> str:
        """Pattern, unit and K multiple in one line, which ``from_line`` reads."""
        return f"{self.pattern.text}; {self.unit}; {self.k_multiple}"

    @staticmethod
    def from_line(id: str, line: str) -> Layout:
        """Read a layout from its line.

        Raises:
            LayoutError: it is none.
        """
        pattern, *rest = line.split("; ")
        if len(rest) != 2 or rest[0] not in get_args(Unit) or not rest[1].isdecimal():
            raise LayoutError(f"layout {id}: {line!r} is no line of a layout: pattern; unit; K multiple")
        return Layout.of(id, pattern, cast("Unit", rest[0]), int(rest[1]))

    @property
    def gate_mode(self) -> GateMode:
        """The gate_mode that a kernel needs to read w13 in this layout."""
        return "interleave" if self.pattern.interleaves_gate_up else "separated"

    @property
    def row_multiple(self) -> int:
        """Multiple that rows must divide by.

        Of each half where the pattern splits gate and up.
        """
        return self.pattern.row_tile // (2 if self.pattern.splits_gate_up else 1)

    def bind(self, experts: int, rows: int, k: int) -> BoundLayout:
        """Bind the layout to a shape ``[experts, rows, K]``, K in units.

        Raises:
            LayoutError: a dimension does not divide; the message names it, the multiple and the padded size.
        """
        for name, size in (("experts", experts), ("rows", rows), ("K", k)):
            if size < 1:
                raise LayoutError(f"layout {self.id}: {name} is {size}; valid: 1 or more")
        unit = "" if self.unit == "any" else f" {self.unit}s"
        for name, size, multiple in (("rows", rows, self.pattern.row_tile), ("K", k, self.k_multiple)):
            if size % multiple:
                padded = -(-size // multiple) * multiple
                what = f"{name} = {size}{unit if name == 'K' else ''}"
                raise LayoutError(f"layout {self.id}: {what} is not a multiple of {multiple}; padded it is {padded}")
        atoms: dict[str, Atom] = {}
        for dimension, names, size in (
            ("experts", self.pattern.experts, experts),
            ("rows", self.pattern.rows, rows),
            ("k", self.pattern.k, k),
        ):
            step = 1
            fixed = prod(fixed_size(name) or 1 for name in names)
            for name in reversed(names):
                length = fixed_size(name) or size // fixed
                atoms[name] = Atom(name, dimension, length, step)  # type: ignore[arg-type]
                step *= length
            if step != size:
                raise LayoutError(f"layout {self.id}: {dimension} = {size}; valid: {step}, which its pattern fixes")
        return BoundLayout(self, (experts, rows, k), tuple(atoms[name] for name in self.pattern.memory))


@dataclass(frozen=True, slots=True)
class BoundLayout:
    """A layout on a shape: from here on everything is arithmetic.

    Attributes:
        shape: ``(experts, rows, K)``, K in units.
        atoms: the axes in memory order.
    """

    layout: Layout
    shape: tuple[int, int, int]
    atoms: tuple[Atom, ...]

    @property
    def permutation(self) -> Permutation:
        """Permutation of the row-major units.

        Equal permutations are equal layouts, whatever their names.
        """
        _, rows, k = self.shape
        scale = {"experts": rows * k, "rows": k, "k": 1}
        return Permutation.coalesce((atom.size, atom.step * scale[atom.dimension]) for atom in self.atoms)

    def address(self, expert: int, row: int, k: int) -> int:
        """Return the memory address of a unit, in units.

        In closed form, without a table.

        Raises:
            LayoutError: the position is outside the shape.
        """
        position = {"experts": expert, "rows": row, "k": k}
        for (name, value), size in zip(position.items(), self.shape, strict=True):
            if not 0 <= value < size:
                raise LayoutError(f"{name} = {value} is outside 0..{size - 1}")
        address = 0
        for atom in self.atoms:
            address = address * atom.size + position[atom.dimension] // atom.step % atom.size
        return address

    def source(self, address: int) -> tuple[int, int, int]:
        """Return the ``(expert, row, k)`` at an address: the inverse of ``address``."""
        _, rows, k = self.shape
        expert, rest = divmod(self.permutation.source(address), rows * k)
        return expert, *divmod(rest, k)

    def alternating(self) -> BoundLayout:
        """Return this layout on alternating rows (GUGU in memory).

        Its row ``2 r`` is gate's row r, its row ``2 r + 1`` is up's.

        Logical rows stay GGUU; what changes is where they lie.

        Raises:
            LayoutError: there is an odd number of rows, or the pattern cuts rows in pieces that hold no pairs.
        """
        half, remainder = divmod(self.shape[1], 2)
        atoms: list[Atom] = []
        for atom in self.atoms:
            if atom.dimension != "rows" or atom.size == 1:
                atoms.append(atom)
            elif atom.step % 2 == 0:
                atoms.append(Atom(atom.name, "rows", atom.size, atom.step // 2))
            elif remainder or atom.step > 1 or atom.size % 2:
                text = f"pieces of {atom.step * atom.size} of {self.shape[1]} rows do not hold pairs of gate and up"
                raise LayoutError(f"layout {self.layout.id}: {text}")
            else:
                atoms += [Atom(atom.name, "rows", atom.size // 2, 1), Atom("g", "rows", 2, half)]
        return BoundLayout(self.layout, self.shape, tuple(atoms))

    def relayout(self, target: BoundLayout) -> Permutation:
        """Return the permutation from bytes of this layout to ``target``'s.

        Raises:
            LayoutError: the shapes differ, or the tiles cut each other.
        """
        if self.shape != target.shape:
            raise LayoutError(f"relayout needs one shape: {self.shape} is not {target.shape}")
        return self.permutation.inverse().compose(target.permutation)

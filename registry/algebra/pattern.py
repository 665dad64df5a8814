"""Layout pattern: an einops line over ``[experts, rows, K]``, parsed into atoms.

An atom is an axis name; a number at its end is its size (``n16`` takes 16 values), ``g`` is gate/up and takes 2. Each
logical dimension has at most one atom without a size: it takes what is left.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from einops import EinopsError
from einops.parsing import ParsedExpression

from preshuffle.registry.base.errors import LayoutError

GATE_UP = "g"
_LONGEST = 256
_LARGEST = 1 << 20
_SIZE = re.compile(r"[a-z_]+?(\d+)$")


def fixed_size(atom: str) -> int | None:
    """Return the size in an atom's name, or None."""
    if atom == GATE_UP:
        return 2
    match = _SIZE.fullmatch(atom)
    return int(match.group(1)) if match else None


@dataclass(frozen=True, slots=True)
class Pattern:
    """Parsed pattern: atoms by logical dimension and in memory order.

    Atoms of a dimension stand outermost first.
    """

    text: str
    experts: tuple[str, ...]
    rows: tuple[str, ...]
    k: tuple[str, ...]
    memory: tuple[str, ...]

    @staticmethod
    def parse(text: str) -> Pattern:
        """Parse ``"e rows k -> memory order"``.

        Raises:
            LayoutError: the pattern is not one, or is not a bijection on three logical dimensions.

        Example:
            >>> Pattern.parse("e (nt n16) (kt k16) -> e nt kt n16 k16").row_tile
            16
        """
        if len(text) > _LONGEST:
            raise LayoutError(f"pattern {text[:40]!r}… has {len(text):,} characters; valid: {_LONGEST} at most")
        sides = text.split("->")
        if len(sides) != 2:
            raise LayoutError(f"pattern {text!r} needs one '->' between the logical axes and the memory order")
        try:
            left, right = (ParsedExpression(side.strip()) for side in sides)
        except EinopsError as error:
            raise LayoutError(f"pattern {text!r}: {error}") from None
        dimensions = [tuple(part) if isinstance(part, list) else (part,) for part in left.composition]
        memory = tuple(atom for part in right.composition for atom in (part if isinstance(part, list) else [part]))
        _check(text, dimensions, memory, left, right)
        experts, rows, k = dimensions
        after = memory[memory.index(GATE_UP) + 1 : memory.index(GATE_UP) + 2] if GATE_UP in memory else ()
        if rows[0] == GATE_UP and after and after == rows[1:2] and fixed_size(after[0]) is None:
            # gate/up that stays where it was is no split at all: such rows need not even come in pairs
            rows, memory = rows[1:], tuple(atom for atom in memory if atom != GATE_UP)
        return Pattern(text, experts, rows, k, memory)

    @property
    def splits_gate_up(self) -> bool:
        """Whether the pattern moves the gate/up axis.

        One that stays where it was does not count.
        """
        return GATE_UP in self.rows

    @property
    def row_tile(self) -> int:
        """Rows of one tile, gate and up together."""
        return _tile(self.rows)

    @property
    def k_tile(self) -> int:
        """Units of K that one tile takes."""
        return _tile(self.k)

    @property
    def interleaves_gate_up(self) -> bool:
        """Whether gate and up rows of one expert alternate in memory."""
        if not self.splits_gate_up:
            return False
        inner = set(self.rows + self.k) - {GATE_UP}
        return any(atom in inner for atom in self.memory[: self.memory.index(GATE_UP)])


@lru_cache(maxsize=1024)
def _tile(atoms: tuple[str, ...]) -> int:
    size = 1
    for atom in atoms:
        size *= fixed_size(atom) or 1
    return size


def _check(
    text: str,
    dimensions: list[tuple[str, ...]],
    memory: tuple[str, ...],
    left: ParsedExpression,
    right: ParsedExpression,
) -> None:
    if left.has_ellipsis or right.has_ellipsis or left.has_non_unitary_anonymous_axes:
        raise LayoutError(f"pattern {text!r}: every axis needs a name; '...' and bare numbers have no meaning here")
    if len(dimensions) != 3:
        raise LayoutError(f"pattern {text!r} has {len(dimensions)} logical dimensions; valid: 3 (experts, rows, K)")
    if left.identifiers != right.identifiers:
        unmatched = ", ".join(sorted(left.identifiers ^ right.identifiers))
        raise LayoutError(f"pattern {text!r}: every axis must stand once on each side; these do not: {unmatched}")
    if sorted(memory) != sorted(left.identifiers) or memory[:1] != dimensions[0][:1]:
        raise LayoutError(f"pattern {text!r}: the expert axis comes first in memory, so that experts stay apart")
    for atoms in dimensions:
        free = [atom for atom in atoms if fixed_size(atom) is None]
        if len(free) > 1:
            raise LayoutError(f"pattern {text!r}: {' and '.join(free)} both lack a size; one axis may")
        if any(fixed_size(atom) == 0 for atom in atoms):
            raise LayoutError(f"pattern {text!r}: an axis of size 0")
        if _tile(atoms) > _LARGEST:
            raise LayoutError(f"pattern {text!r}: a tile of more than {_LARGEST:,}")
    if GATE_UP in memory and dimensions[1][:1] != (GATE_UP,) and dimensions[1][-1:] != (GATE_UP,):
        raise LayoutError(f"pattern {text!r}: g is the outermost (GGUU) or the innermost (GUGU) axis of the rows")

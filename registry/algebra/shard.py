"""Sharding: slices of a dimension per rank, in whole scale groups."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from preshuffle.registry.base.errors import FieldProblem, QueryError


@dataclass(frozen=True, slots=True)
class Slice:
    """What one rank gets of a dimension: values ``start`` to ``stop``."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many values."""
        return self.stop - self.start


@lru_cache(maxsize=4096)
def cut(size: int, ranks: int, group: int) -> tuple[Slice, ...]:
    """Cut a dimension into slices of whole groups, one per rank.

    Each rank gets ``ceil(groups / ranks)`` groups, the last one fewer.

    This is how vLLM and SGLang cut an MX dimension. Slicing through a group, which leaves two ranks with half a scale
    each, is wrong.

    Args:
        size: values of the dimension.
        ranks: tensor-parallel size.
        group: values that share a scale (1 where nothing is shared).

    Raises:
        QueryError: the dimension is not whole groups, or a rank would get nothing.

    Example:
        >>> [piece.size for piece in cut(2880, 4, 32)]
        [736, 736, 736, 672]
    """
    groups, rest = divmod(size, group)
    if rest:
        raise QueryError([FieldProblem("intermediate_size", f"{size} is not whole groups of {group}")])
    share = -(-groups // ranks)
    filled = -(-groups // share)  # ranks that get something; as many leave none empty
    if filled < ranks:
        text = f"{ranks} ranks of {share} groups each leave the last without any of the {groups} groups of {group}"
        raise QueryError([FieldProblem("tp", text, (f"{filled}, the next that leaves none empty",))])
    return cut_slices(size, ranks, share * group)


@lru_cache(maxsize=4096)
def cut_slices(size: int, ranks: int, share: int) -> tuple[Slice, ...]:
    """Cut a dimension into slices of one size.

    The last ranks may get less, or nothing. This is how loaders cut that count by the size of a rank's buffer. Every
    value is on exactly one rank.

    Args:
        size: values of the dimension.
        ranks: tensor-parallel size.
        share: values of a whole slice; ranks times share are at least the size.

    Example:
        >>> [piece.size for piece in cut_slices(1536, 8, 256)]
        [256, 256, 256, 256, 256, 256, 0, 0]
    """
    return tuple(Slice(min(rank * share, size), min((rank + 1) * share, size)) for rank in range(ranks))


def cut_values(size: int, ranks: int, group: int) -> tuple[Slice, ...]:
    """Cut a dimension into equal numbers of values.

    Raises:
        QueryError: they do not divide, or two ranks would share the scale of a group.
    """
    share, rest = divmod(size, ranks)
    if rest or share % group:
        why = f"{ranks} ranks do not divide {size}" if rest else f"{share} values cut through groups of {group}"
        raise QueryError([FieldProblem("shard", f"values: {why}", ("groups",))])
    return cut_slices(size, ranks, share)


@lru_cache(maxsize=4096)
def experts_per_rank(num_experts: int, ranks: int) -> int:
    """Return the experts of each expert-parallel rank.

    Raises:
        QueryError: they do not divide.
    """
    if num_experts % ranks:
        raise QueryError([FieldProblem("ep", f"{ranks} ranks do not divide {num_experts} experts")])
    return num_experts // ranks


def split_experts(num_experts: int, ranks: int) -> tuple[Slice, ...]:
    """Split the experts evenly between expert-parallel ranks.

    Raises:
        QueryError: they do not divide.
    """
    share = experts_per_rank(num_experts, ranks)
    return tuple(Slice(rank * share, (rank + 1) * share) for rank in range(ranks))

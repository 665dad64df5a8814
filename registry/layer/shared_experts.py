"""Shared experts that an engine fuses into the routed experts.

They count in ``num_experts`` and ``top_k``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from preshuffle.registry.base.memo import Memo
from preshuffle.registry.entries import FlagEntry
from preshuffle.registry.layer.switches import Switches
from preshuffle.registry.loading import Book
from preshuffle.registry.values.query import Query


@dataclass(frozen=True, slots=True)
class Counted:
    """Shared experts that count.

    Attributes:
        fields: the query's fields, the shared experts counted in.
        reason: why they count.
    """

    fields: Mapping[str, int]
    reason: str


def count_shared(shared: int, query: Query, switches: Switches, book: Book, memo: Memo | None = None) -> Counted | None:
    """Count shared experts that the query's engine fuses into the layer.

    Every expert-parallel rank has shared experts of its own: of ``E`` routed experts each rank then holds
    ``E / ep + shared``, which is the share of ``E + shared * ep`` experts.

    Args:
        shared: how many shared experts there are.
        query: with its number of routed experts and its top-k.
        switches: the query's switches, defaults included.
        book: whose switches count.
        memo: stores which switches of an engine count.
    """
    if not shared or query.engine is None or query.num_experts is None or query.top_k is None:
        return None
    owner = query.engine.name
    for flag in (memo or Memo()).get("fusing switches", owner, lambda: _fusing(book, owner)):
        if _fuses(flag, query.model, switches.values):
            fields = {"num_experts": query.num_experts + shared * query.ep, "top_k": query.top_k + shared}
            plural = "shared expert counts" if shared == 1 else "shared experts count"
            value = switches.values[flag.id]
            return Counted(fields, f"{shared} {plural} among the experts, since {flag.id} is {value}")
    return None


def appends_masked_column(query: Query, switches: Switches, book: Book) -> bool:
    """Return whether ``topk_ids`` has a masked column beyond top-k.

    It applies to engines that pass an expert mask.

    Some engines append a masked column (the book's ``fusions`` say which, and when). Where
    no engine is named, or the book does not know it, the column is there, as in AITER's own tests.

    Args:
        query: with its model's own id.
        switches: the query's switches, defaults included.
        book: whose engines count.
    """
    owner = query.engine.name if query.engine else None
    fusion = next((entry for entry in book.entries["fusions"].values() if entry.engine == owner), None)
    if fusion is None or fusion.masked_column == "always":
        return True
    if fusion.masked_column == "never":
        return False
    return any(_fuses(flag, query.model, switches.values) for flag in _fusing(book, fusion.engine))


def _fusing(book: Book, owner: str) -> list[FlagEntry]:
    return [flag for flag in book.flags.values() if flag.owner == owner and flag.fuses_shared_experts]


def _fuses(flag: FlagEntry, model: str, values: Mapping[str, str]) -> bool:
    fusion = flag.fuses_shared_experts
    return (
        fusion is not None
        and values.get(flag.id) in fusion.values
        and all(values.get(name) == value for name, value in fusion.needs.items())
        and (not fusion.models or any(fnmatchcase(model, pattern) for pattern in fusion.models))
    )

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
    flag = _fusing_switch(query.engine.name, query.model, switches, book, memo)
    if flag is None:
        return None
    fields = {"num_experts": query.num_experts + shared * query.ep, "top_k": query.top_k + shared}
    plural = "shared expert counts" if shared == 1 else "shared experts count"
    return Counted(fields, f"{shared} {plural} among the experts, since {flag.id} is {switches.values[flag.id]}")


def appends_masked_column(query: Query, switches: Switches, book: Book, memo: Memo | None = None) -> bool:
    """Return whether ``topk_ids`` has a masked column beyond top-k.

    It has one only where an expert mask is passed. The book's ``fusions`` say which engines append one, and when. Where
    no engine is named, or the book does not know it, the column is there, as in AITER's own tests.

    Args:
        query: with its model's own id.
        switches: the query's switches, defaults included.
        book: whose engines count.
        memo: stores which switches of an engine count.
    """
    owner = query.engine.name if query.engine else None
    fusion = next((entry for entry in book.entries["fusions"].values() if entry.engine == owner), None)
    if fusion is None or fusion.masked_column == "always":
        return True
    if fusion.masked_column == "never":
        return False
    return _fusing_switch(fusion.engine, query.model, switches, book, memo) is not None


def _fusing_switch(engine: str, model: str, switches: Switches, book: Book, memo: Memo | None) -> FlagEntry | None:
    """Return the switch that makes an engine fuse shared experts, or None."""
    flags = (memo or Memo()).get("fusing switches", engine, lambda: _switches_of(book, engine))
    return next((flag for flag in flags if _fuses(flag, model, switches.values)), None)


def _switches_of(book: Book, engine: str) -> list[FlagEntry]:
    return [flag for flag in book.flags.values() if flag.owner == engine and flag.fuses_shared_experts]


def _fuses(flag: FlagEntry, model: str, values: Mapping[str, str]) -> bool:
    fusion = flag.fuses_shared_experts
    return (
        fusion is not None
        and values.get(flag.id) in fusion.values
        and all(values.get(name) == value for name, value in fusion.needs.items())
        and (not fusion.models or any(fnmatchcase(model, pattern) for pattern in fusion.models))
    )

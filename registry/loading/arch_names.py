"""Names of GPUs: gfx names, torch's ``gcnArchName``, products and their aliases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from preshuffle.registry.base.globs import glob_test
from preshuffle.registry.base.suggestions import close_to
from preshuffle.registry.entries import ArchEntry, OtherGpuEntry
from preshuffle.registry.values.query import Query


@dataclass(frozen=True, slots=True)
class NamedArch:
    """What a GPU's name means.

    Attributes:
        cu_num: compute units of the product that is named; None where the name is the architecture's.
        product: the product that is named, likewise.
    """

    entry: ArchEntry
    cu_num: int | None = None
    product: str | None = None


class ArchNames:
    """Names of GPU architectures, compared without case, spaces and hyphens."""

    def __init__(self, archs: Mapping[str, ArchEntry], others: Iterable[OtherGpuEntry] = ()) -> None:
        """Index the entries by every name; ``others`` are known by name only."""
        self._archs = archs
        self._others = tuple((glob_test(pattern), entry) for entry in others for pattern in entry.patterns)
        self._named = {key_of(name): named for entry in archs.values() for name, named in names_of(entry)}

    def find(self, name: str) -> NamedArch | None:
        """Return what a name means; None where it is unknown.

        What follows a colon is cut: ``gfx950:sramecc+:xnack-`` is gfx950.
        """
        return self._named.get(key_of(name.partition(":")[0]))

    def gfx(self, name: str) -> str:
        """Return a name's gfx name; the name itself where it is unknown."""
        named = self.find(name)
        return named.entry.id if named else name

    def complete(self, query: Query) -> tuple[ArchEntry | None, Query]:
        """Return a query's architecture, and the query with its gfx name.

        A product also gives the compute units, where the query does not state them. An unknown name is left as it is.
        """
        entry = self._archs.get(query.arch)
        if entry is not None:
            return entry, query
        named = self.find(query.arch)
        if named is None:
            return None, query
        cu_num = query.cu_num if query.cu_num is not None else named.cu_num
        return named.entry, query.altered(arch=named.entry.id, cu_num=cu_num)

    def near(self, name: str) -> tuple[str, ...]:
        """Return the known names near to an unknown one."""
        spelled = {other.casefold(): other for entry in self._archs.values() for other, _ in names_of(entry)}
        return tuple(spelled[close] for close in close_to(name.casefold(), spelled))

    def other(self, name: str) -> str | None:
        """Describe a GPU that is known by name only."""
        key = key_of(name.partition(":")[0])
        return next((entry.says for matches, entry in self._others if matches(key)), None)

    def unknown(self, name: str) -> str:
        """Say that a name is unknown, and which known ones are near."""
        if says := self.other(name):
            return f"arch {name!r} is {says}"
        *others, last = self.near(name) or ("",)
        if last:
            nearest = f"{', '.join(others)} or {last}" if others else last
            return f"unknown arch {name!r}; did you mean {nearest}?"
        return f"unknown arch {name!r}; valid: {', '.join(self._archs)}, or a product's name"


def names_of(entry: ArchEntry) -> Iterator[tuple[str, NamedArch]]:
    """Yield every name of an architecture, with what it means."""
    yield entry.id, NamedArch(entry)
    for product in dict.fromkeys((*entry.products, *entry.aliases)):
        named = NamedArch(entry, entry.cu_num.get(product), None if product == entry.id else product)
        yield from ((name, named) for name in (product, *entry.aliases.get(product, ())))


def key_of(name: str) -> str:
    """Return a name's lower-case letters and digits, for comparison."""
    return "".join(filter(str.isalnum, name.casefold()))

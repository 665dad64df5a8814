"""Claims of a book on what kernels read, case by case."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Final, get_args

from preshuffle.registry.base.linear_pattern import linear_pattern
from preshuffle.registry.base.words import Activation, CallDtype, Dtype, QuantType
from preshuffle.registry.entries import BackendEntry
from preshuffle.registry.kernels import DerivedReads, Family, KernelEvidence, Owner
from preshuffle.registry.loading import Book

_CLOSED: Final[Mapping[str, tuple[str, ...]]] = {
    "gate_mode": ("separated", "interleave"),
    "is_shuffled": ("true", "false"),
    "split_k": ("1", "n"),
    "post_activation_layout": ("", "auto", "standard"),
    "activation_dtype": get_args(Dtype),
    "weight_dtype": get_args(CallDtype),
    "quant_type": get_args(QuantType),
    "activation": get_args(Activation),
}
"""Values of a call's facts."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Claimed layout of one case, with its evidence.

    Attributes:
        owner: the family, or the backend.
        case: facts of the call and groups of the kernel's name; ``arch`` where the owner has GPUs.
        evidence: the strongest that gives this layout; None where there is none.
    """

    owner: Owner
    case: tuple[tuple[str, str], ...]
    role: str
    layout: str
    evidence: KernelEvidence | None


@dataclass(frozen=True, slots=True)
class ReadVariant:
    """Layouts that an owner reads in some cases.

    Attributes:
        when: the cases.
        reads: the layouts, any of which a role may be in.
    """

    when: Mapping[str, tuple[str, ...]]
    reads: Mapping[str, tuple[str, ...]]


def claims_of(book: Book) -> Iterator[Claim]:
    """Yield every claim of families and backends, case by case."""
    for owner in owners_of(book):
        yield from ReadCases(book, owner).claims()


def owners_of(book: Book) -> Iterator[Owner]:
    """Yield what reads layouts: families, and backends with own kernels."""
    yield from (("kernel_families", family.id) for family in book.families)
    yield from (("backends", id) for id in book.entries["backends"])


def case_text(case: tuple[tuple[str, str], ...]) -> str:
    """Return a case in a few words."""
    words = ((name.removeprefix("name."), value) for name, value in case)
    return ", ".join(f"{name} {value}" if value else f"no {name}" for name, value in words) or "always"


class ReadCases:
    """Distinguishable cases of one family or backend."""

    def __init__(self, book: Book, owner: Owner) -> None:
        """Collect the claims and the evidence of an owner."""
        self._book, self._owner = book, owner
        self._entries = [entry for entry in book.kernel_evidence.values() if entry.owner == owner]
        self._grammar = ""
        entry: Family | BackendEntry = book.entries[owner[0]][owner[1]]
        if isinstance(entry, Family):
            self._grammar = entry.grammar
            self._archs = entry.archs or ("",)
            self._variants = [
                ReadVariant(variant.when, {role: (layout,) for role, layout in variant.reads.items()})
                for variant in entry.variants
            ]
        else:
            self._variants = _of_backend(entry)
            self._archs = entry.archs or (*self._named_archs(), "")

    def claims(self, names: Collection[str] | None = None) -> Iterator[Claim]:
        """Yield the owner's claims.

        Args:
            names: of the layouts that are wanted; None for all.
        """
        for number, variant in enumerate(self._variants):
            for case in self._cases(number) if variant.reads else ():
                counting = [entry for entry in self._entries if _counts(entry, case)]
                for role, layouts in variant.reads.items():
                    for layout in layouts if names is None else filter(names.__contains__, layouts):
                        evidence = self._strongest(counting, role, layout)
                        yield Claim(self._owner, tuple(case.items()), role, layout, evidence)

    def contradicting(self) -> Iterator[tuple[KernelEvidence, str, str, str]]:
        """Yield contradicting evidence: role, layout found, layouts claimed."""
        for number, variant in enumerate(self._variants):
            for case in self._cases(number):
                for entry in self._entries:
                    for role, found in entry.reads.items() if _counts(entry, case) else ():
                        claimed = variant.reads.get(role)
                        if claimed is not None and self._id(found) not in map(self._id, claimed):
                            yield entry, role, found, " or ".join(claimed)

    def _named_archs(self) -> tuple[str, ...]:
        """Return the GPUs that variants or evidence name; the others are all the same."""
        conditions = [*(variant.when for variant in self._variants), *(entry.when for entry in self._entries)]
        named = [arch for when in conditions for arch in when.get("arch", ())]
        named += [entry.known.arch for entry in self._entries if isinstance(entry.known, DerivedReads)]
        return tuple(dict.fromkeys(named))

    def _strongest(self, counting: Iterable[KernelEvidence], role: str, layout: str) -> KernelEvidence | None:
        """Return the strongest of the evidence that counts in a case."""
        wanted = self._id(layout)
        fitting = [entry for entry in counting if not entry.reads or self._id(entry.reads.get(role, "")) == wanted]
        return min(fitting, key=lambda entry: (entry.strength, -len(entry.when)), default=None)

    def _id(self, layout: str) -> str:
        return self._book.layout(layout).id if layout in self._book.known_layouts else layout

    def _cases(self, number: int) -> Iterator[dict[str, str]]:
        """Yield the cases of a variant that no earlier one takes."""
        when = self._variants[number].when
        domains = {
            name: tuple(value for value in values if name not in when or value in when[name])
            for name, values in self._domains.items()
        }
        for values in product(*domains.values()):
            case = dict(zip(domains, values, strict=True))
            if not any(_holds(earlier.when, case) for earlier in self._variants[:number]):
                yield case

    @cached_property
    def _domains(self) -> dict[str, tuple[str, ...]]:
        """Distinguishable values of each fact, one of each kind."""
        conditions = [entry.when for entry in self._entries] + [variant.when for variant in self._variants]
        found: dict[str, tuple[str, ...]] = {"arch": self._archs}
        for name in dict.fromkeys(name for when in conditions for name in when if name != "arch"):
            wanted = [when[name] for when in conditions if name in when]
            start = _CLOSED.get(name, ())
            if name.startswith("name.") and _may_lack(self._grammar, name[5:]):
                start = ("",)
            kinds: dict[tuple[bool, ...], str] = {}
            for value in dict.fromkeys((*start, *(value for values in wanted for value in values))):
                kinds.setdefault(tuple(value in values for values in wanted), value)
            found[name] = tuple(kinds.values())
        return found


def _of_backend(entry: BackendEntry) -> list[ReadVariant]:
    """Return what a backend's own kernels read; those behind AITER's dispatch are of families."""
    return [
        ReadVariant(
            {name: getattr(variant, name) for name in BACKEND_FACTS if getattr(variant, name)},
            {} if variant.through == "aiter" else {str(role): layouts for role, layouts in variant.reads.items()},
        )
        for variant in entry.variants
    ]


BACKEND_FACTS: Final = ("arch", "weight_dtype", "activation")
"""Facts on which it depends what a backend reads."""


def _may_lack(grammar: str, group: str) -> bool:
    """Return whether a kernel name can lack a group."""
    optional = rf"(\(\?:[^()]*)?\(\?P<{group}>[^()]*\)(?(1)[^()]*\))\?"
    return linear_pattern(grammar).matches("") or re.search(optional, grammar) is not None


def _counts(entry: KernelEvidence, case: Mapping[str, str]) -> bool:
    known = entry.known
    return _holds(entry.when, case) and not (isinstance(known, DerivedReads) and known.arch != case["arch"])


def _holds(when: Mapping[str, tuple[str, ...]], case: Mapping[str, str]) -> bool:
    # a loop: a generator's frames were a third of a check of the book
    for name, values in when.items():
        if case.get(name, "") not in values:
            return False
    return True

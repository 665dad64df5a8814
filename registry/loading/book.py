"""Book: all entries by section, with the source location of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

from preshuffle.registry.algebra.layout import Layout
from preshuffle.registry.base.errors import Problem
from preshuffle.registry.base.suggestions import meant, near
from preshuffle.registry.entries import (
    ArchEntry,
    EngineEntry,
    FeatureEntry,
    FlagEntry,
    FusionEntry,
    LayoutEntry,
    ModelEntry,
    ModelTypeEntry,
    QuantizationEntry,
    Recipe,
    Rule,
)
from preshuffle.registry.kernels import Families, SignatureTable
from preshuffle.registry.loading.arch_names import ArchNames
from preshuffle.registry.loading.condition_index import Compiled
from preshuffle.registry.loading.evidence_section import SECTION, EvidenceSection
from preshuffle.registry.loading.fusion_index import FusionIndex
from preshuffle.registry.loading.model_names import ModelNames
from preshuffle.registry.loading.rule_index import RuleIndex
from preshuffle.registry.text import FOLDER, Document, Path
from preshuffle.registry.values.digest import digest_of


class _Named(Protocol):
    @property
    def id(self) -> str: ...


Named = TypeVar("Named", bound=_Named)


@dataclass(frozen=True, slots=True)
class Place:
    """Source location of an entry: its document and its path there."""

    document: Document
    path: Path

    @property
    def packaged(self) -> bool:
        """Whether it is in the packaged book, not in an overlay."""
        return self.document.name.startswith(f"{FOLDER.name}/")

    def __str__(self) -> str:
        """Return ``file:line``."""
        return f"{self.document.name}:{self.document.line(self.path)}"

    def problem(self, message: str, *inside: str | int, valid: Iterable[str] = ()) -> Problem:
        """Return a problem at a place inside the entry."""
        return self.document.problem((*self.path, *inside), message, tuple(valid))

    def unknown(self, message: str, name: str, known: Iterable[str], *inside: str | int) -> Problem:
        """Return the problem of an unknown name, with the nearest names.

        Args:
            message: up to the name.
            name: the unknown one.
            known: all names that there are.
            inside: where it stands in the entry.
        """
        names = list(known)
        return self.problem(f"{message} {name!r}{meant(name, names)}", *inside, valid=near(name, names))


@dataclass(frozen=True)
class Book:
    """All entries by section and id, with the source location of each.

    It is data: the indexes below follow from the entries alone and are built on first use. Results of queries are
    stored by the registry (``Memo``), never here.
    """

    entries: Mapping[str, Mapping[str, Any]]
    places: Mapping[tuple[str, str], Place] = field(repr=False)
    sources: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[type[Book], tuple[Any, ...]]:
        """Copy and pickle without the derived indexes."""
        return Book, (self.entries, self.places, self.sources)

    @property
    def layouts(self) -> Mapping[str, LayoutEntry]:
        """Layout entries by id."""
        return self.entries["layouts"]

    @property
    def archs(self) -> Mapping[str, ArchEntry]:
        """GPU architectures by gfx name."""
        return self.entries["archs"]

    @property
    def engines(self) -> Mapping[str, EngineEntry]:
        """Inference engines by name."""
        return self.entries["engines"]

    @property
    def features(self) -> Mapping[str, FeatureEntry]:
        """AITER features by id."""
        return self.entries["features"]

    @property
    def flags(self) -> Mapping[str, FlagEntry]:
        """Environment switches by name."""
        return self.entries["flags"]

    @property
    def models(self) -> Mapping[str, ModelEntry]:
        """Models by id."""
        return self.entries["models"]

    @property
    def model_types(self) -> Mapping[str, ModelTypeEntry]:
        """Hugging Face model types by name."""
        return self.entries["model_types"]

    @cached_property
    def quantizations(self) -> Mapping[str, QuantizationEntry]:
        """Quantization methods by ``quant_method``, aliases too; ``none`` for their absence."""
        entries: Iterable[QuantizationEntry] = self.entries["quantizations"].values()
        return {name: entry for entry in entries for name in (entry.id, *entry.aliases)}

    @property
    def recipes(self) -> Mapping[str, Recipe]:
        """Recipes by id."""
        return self.entries["recipes"]

    @property
    def rules(self) -> Mapping[str, Rule]:
        """Rules by id."""
        return self.entries["rules"]

    @cached_property
    def rule_index(self) -> RuleIndex:
        """Index that finds the rules that may match a query."""
        return RuleIndex(self.rules.values(), self.recipes)

    def build_indexes(self) -> None:
        """Build the indexes that every query needs."""
        _ = self.rule_index, self.fusion_index, self.model_names, self.arch_names, self.refusing

    @property
    def fusions(self) -> Mapping[str, FusionEntry]:
        """What engines make of shared experts, by id."""
        return self.entries["fusions"]

    @cached_property
    def fusion_index(self) -> FusionIndex:
        """Index of fusions by engine, the most specific first."""
        return FusionIndex(self.fusions.values())

    @cached_property
    def model_names(self) -> ModelNames:
        """Index of model ids, aliases and globs."""
        return ModelNames(self.models.values())

    @cached_property
    def arch_names(self) -> ArchNames:
        """What every GPU is called."""
        return ArchNames(self.archs, self.entries["other_gpus"].values())

    @cached_property
    def families(self) -> Families:
        """Index of kernel families by kernel name and launching function."""
        families, tags = self.entries["kernel_families"].values(), self.entries["kernel_tags"].values()
        return Families(families, tags, self.kernel_evidence.as_written)

    @cached_property
    def signatures(self) -> SignatureTable:
        """Signatures of the functions that run experts."""
        return SignatureTable(self.entries["signatures"].values(), self.entries["enumerations"].values())

    @property
    def kernel_evidence(self) -> EvidenceSection:
        """Evidence of what kernels read, by id.

        The packaged part is read on first use.
        """
        section = self.entries[SECTION]
        return section if isinstance(section, EvidenceSection) else EvidenceSection(section)

    @cached_property
    def overlaid(self) -> bool:
        """Whether any entry is an overlay's."""
        return not all(place.packaged for place in self.places.values())

    def packaged_first(self, section: str, pair: tuple[Named, Named]) -> tuple[Named, Named]:
        """Return two entries, a packaged one before an overlay's.

        The operator can change the second.
        """
        first, second = sorted(pair, key=lambda entry: not self.places[section, entry.id].packaged)
        return first, second

    def place_of(self, section: str, id: str) -> Place:
        """Return where an entry stands.

        Raises:
            KeyError: there is no such entry.
        """
        found = self.places.get((section, id))
        if found is None and section == SECTION and id in self.kernel_evidence:
            return Place(self.kernel_evidence.packaged_document(), (section, id))
        return found or self.places[section, id]

    @cached_property
    def refusing(self) -> tuple[Compiled, ...]:
        """Contracts on layers that no recipe is given for."""
        return tuple(Compiled.of(entry) for entry in self.entries["contracts"].values() if entry.refuses)

    @cached_property
    def model_types_by_name(self) -> Mapping[str, ModelTypeEntry]:
        """Hugging Face model types by name and alias."""
        entries = self.model_types.values()
        return {name: entry for entry in entries for name in (*entry.aliases, entry.id)}

    @cached_property
    def engine_names(self) -> frozenset[str]:
        """Names of engines in entries and in their conditions."""
        sections = (section for name, section in self.entries.items() if name != SECTION)
        entries = (entry for section in sections for entry in section.values())
        return frozenset(self.engines).union(*map(_engines_of, entries))

    @cached_property
    def layout(self) -> Callable[[str], Layout]:
        """Return a layout by id or alias; KeyError if unknown."""
        table = {name: entry.layout() for entry in self.layouts.values() for name in (*entry.aliases, entry.id)}
        return table.__getitem__

    @cached_property
    def own_lines(self) -> Mapping[str, str]:
        """Layout lines of overlays, by id and alias; none of packaged layouts."""
        return {
            name: entry.layout().line
            for entry in self.layouts.values()
            if not self.places["layouts", entry.id].packaged
            for name in (*entry.aliases, entry.id)
        }

    @cached_property
    def passed_tiles(self) -> tuple[int, ...]:
        """Rows of the tiles of scales that are passed tile by tile."""
        entries = self.layouts.values()
        tiles = (entry.layout().pattern.row_tile for entry in entries if entry.passed_as == "tiles")
        return tuple(dict.fromkeys(tiles))

    @cached_property
    def known_layouts(self) -> frozenset[str]:
        """Layout ids and their aliases."""
        return frozenset(name for entry in self.layouts.values() for name in (entry.id, *entry.aliases))

    @cached_property
    def digest(self) -> str:
        """``sha256:…`` over the meaning of all entries.

        Comments, order and file names do not change it, nor does the packaged evidence on what kernels read.
        """
        sections = {**self.entries, SECTION: self.kernel_evidence.own}
        return digest_of(
            {
                section: {id: entry.model_dump(mode="json") for id, entry in entries.items()}
                for section, entries in sections.items()
            }
        )


def _engines_of(entry: Any) -> Iterator[str]:
    """Yield the engines that an entry's conditions give by name, not by a glob."""
    wanted = (getattr(entry, "when", None) or {}).get("engine")
    for name in wanted if isinstance(wanted, tuple) else (wanted,):
        if isinstance(name, str) and not set(name) & set("*?["):
            yield name

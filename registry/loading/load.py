"""Load the packaged book and overlays; collect every problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import ValidationError

from preshuffle.registry.base.errors import BookError, Problem
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.limits import MAX_ITEMS, MAX_NAME, MAX_PROBLEMS, more
from preshuffle.registry.entries import (
    ArchEntry,
    BackendEntry,
    ContractEntry,
    EngineEntry,
    EngineLayerEntry,
    FeatureEntry,
    FlagEntry,
    FunctionEntry,
    FusionEntry,
    KernelLabelEntry,
    KernelNeedEntry,
    KnownBadEntry,
    LayoutEntry,
    ModelEntry,
    ModelTypeEntry,
    OtherGpuEntry,
    PadConventionEntry,
    QuantizationEntry,
    Recipe,
    Rule,
    ScaleLabelEntry,
    SwitchPatternEntry,
    TargetNamesEntry,
)
from preshuffle.registry.kernels import (
    EVIDENCE,
    Enumeration,
    Family,
    KernelEvidence,
    KernelTag,
    Packing,
    Signature,
)
from preshuffle.registry.loading.book import Book, Place
from preshuffle.registry.loading.evidence_section import SECTION, EvidenceSection
from preshuffle.registry.loading.inherit import inherit
from preshuffle.registry.loading.names import translate_names
from preshuffle.registry.text import FOLDER, Document, field_problems, packaged_document, short

SECTIONS: Mapping[str, type[Frozen]] = {
    "layouts": LayoutEntry,
    "archs": ArchEntry,
    "other_gpus": OtherGpuEntry,
    "engines": EngineEntry,
    "features": FeatureEntry,
    "flags": FlagEntry,
    "models": ModelEntry,
    "model_types": ModelTypeEntry,
    "quantizations": QuantizationEntry,
    "recipes": Recipe,
    "rules": Rule,
    "known_bad": KnownBadEntry,
    "contracts": ContractEntry,
    "backends": BackendEntry,
    "scale_labels": ScaleLabelEntry,
    "kernel_labels": KernelLabelEntry,
    "kernel_needs": KernelNeedEntry,
    "pad_conventions": PadConventionEntry,
    "switch_patterns": SwitchPatternEntry,
    "functions": FunctionEntry,
    "target_names": TargetNamesEntry,
    "engine_layers": EngineLayerEntry,
    "signatures": Signature,
    "enumerations": Enumeration,
    "fusions": FusionEntry,
    "kernel_families": Family,
    "kernel_tags": KernelTag,
    "packings": Packing,
    SECTION: KernelEvidence,
}


# Files of the packaged book that have a schema and a loader of their own, or are read when they are needed.
OTHER_SCHEMA = frozenset({"aiter_dispatch.yaml"})
LATER = frozenset({EVIDENCE})


_MAX_BYTES = 1 << 20
# Problems after which the other entries of a section are not read, and count as one problem each.
_MAX_READ = 2 * MAX_PROBLEMS
_MAX_ENTRIES = 5_000
"""Entries of one file."""
_COSTLY: Mapping[str, int] = {"kernel_families": 64, "kernel_tags": 64, "kernel_labels": 64, "layouts": 500}
"""Entries of one section of a file, where each is compiled or parsed once more."""


Entry = TypeVar("Entry", bound=Frozen)


def load_book(overlays: Iterable[FilePath | str] = (), texts: Iterable[Mapping[str, str]] = ()) -> Book:
    """Load the packaged book with overlays on top, entry by entry.

    Args:
        overlays: folders or files, later ones on top.
        texts: overlays that are in memory, YAML by file name, on top of all others.

    Raises:
        BookError: lists everything that is wrong, each with file, line and column.
    """
    problems: list[Problem] = []
    overlays = [overlays] if isinstance(overlays, str | FilePath) else overlays
    packaged = packaged_layer(tuple((name, (FOLDER / name).read_bytes()) for name in _packaged()))
    problems += packaged.problems
    entries = {section: dict(items) for section, items in packaged.entries.items()}
    places = dict(packaged.places)
    layers = [[_parsed(*named) for named in _folder(FilePath(overlay), problems)] for overlay in overlays]
    layers += [[_parsed(*named) for named in overlay.items()] for overlay in texts]
    for layer in layers:
        seen: dict[tuple[str, str], Place] = {}
        for document, yaml_problems in layer:
            problems += yaml_problems
            _collect_entries(document, entries, seen, problems)
        places.update(seen)
    if not problems:
        entries["model_types"] = inherit(entries["model_types"], places, problems)
    if problems:
        raise BookError(problems)
    translate_names(entries)
    sections = {**entries, SECTION: EvidenceSection(entries[SECTION])}
    names = (document.name for layer in layers for document, _ in layer)
    return Book(sections, places, (*packaged.sources, *names))


@dataclass(frozen=True, slots=True)
class PackagedLayer:
    """Validated entries of the packaged book's files; nobody changes them."""

    entries: Mapping[str, Mapping[str, Any]]
    places: Mapping[tuple[str, str], Place]
    sources: tuple[str, ...]
    problems: tuple[Problem, ...]


@lru_cache(maxsize=1)
def packaged_layer(files: tuple[tuple[str, bytes], ...]) -> PackagedLayer:
    """Validate the packaged book's entries, once per process for the same bytes."""
    problems: list[Problem] = []
    entries: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    places: dict[tuple[str, str], Place] = {}
    documents = [packaged_document(name) for name, _ in files]
    for document, yaml_problems in documents:
        problems += yaml_problems
        _collect_entries(document, entries, places, problems)
    return PackagedLayer(entries, places, tuple(document.name for document, _ in documents), tuple(problems))


def _packaged() -> list[str]:
    return sorted(file.name for file in FOLDER.glob("*.yaml") if file.name not in OTHER_SCHEMA | LATER)


def _parsed(name: str, text: str) -> tuple[Document, list[Problem]]:
    from preshuffle.registry.text import parse_yaml

    looks_packaged = name.startswith(f"{FOLDER.name}/")  # an overlay's folder may have the packaged one's name
    return parse_yaml(text, f"./{name}" if looks_packaged else name)


def _folder(overlay: FilePath, problems: list[Problem]) -> list[tuple[str, str]]:
    try:
        paths = [overlay] if overlay.is_file() else sorted([*overlay.glob("*.yaml"), *overlay.glob("*.yml")])
    except OSError as error:
        problems.append(Problem(str(overlay), 0, 0, f"cannot be read: {error.strerror}"))
        return []
    if not paths:
        message = "no *.yaml in this folder" if overlay.is_dir() else "no such file or folder"
        problems.append(Problem(str(overlay), 0, 0, message, ("a folder with *.yaml files, or one YAML file",)))
    texts: list[tuple[str, str]] = []
    for path in paths:
        try:
            if (size := path.stat().st_size) > _MAX_BYTES:
                problems.append(Problem(str(path), 1, 1, f"{size:,} bytes; a book file has at most {_MAX_BYTES:,}"))
                continue
            texts.append((str(path), path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"not UTF-8 at byte {error.start}"
            problems.append(Problem(str(path), 1, 1, f"cannot be read: {reason}"))
    return texts


def _collect_entries(
    document: Document,
    entries: dict[str, dict[str, Any]],
    seen: dict[tuple[str, str], Place],
    problems: list[Problem],
) -> None:
    if document.value is None:
        return
    if not isinstance(document.value, dict):
        problems.append(document.problem((), "a book file is a mapping of sections", tuple(SECTIONS)))
        return
    count = sum(len(items) for items in document.value.values() if isinstance(items, dict))
    if count > _MAX_ENTRIES:
        problems.append(document.problem((), f"{count:,} entries; a book file has at most {_MAX_ENTRIES:,}"))
        return
    for section, items in document.value.items():
        if len(problems) > MAX_PROBLEMS and (section not in SECTIONS or not isinstance(items, dict)):
            problems.append(_unlisted(document))
        elif section not in SECTIONS:
            problems.append(document.problem((section,), f"unknown section {section!r}", tuple(SECTIONS)))
        elif not isinstance(items, dict):
            problems.append(document.problem((section,), f"{section} is a mapping of ids to entries"))
        elif len(items) > _COSTLY.get(section, _MAX_ENTRIES):
            text = f"{len(items):,} {section}; a book file has at most {_COSTLY[section]}"
            problems.append(document.problem((section,), text))
        else:
            _collect_section(document, section, items, entries[section], seen, problems)


def _collect_section(
    document: Document,
    section: str,
    items: dict[str, Any],
    entries: dict[str, Any],
    seen: dict[tuple[str, str], Place],
    problems: list[Problem],
) -> None:
    for number, (id, raw) in enumerate(items.items()):
        if len(problems) > _MAX_READ:
            problems.append(_unlisted(document, len(items) - number))
            return
        place = Place(document, (section, id))
        if len(problems) > MAX_PROBLEMS and (section, id) in seen:
            problems.append(_unlisted(document))
            continue
        if (first := seen.get((section, id))) is not None:
            problems.append(place.problem(f"duplicate id {id!r} in {section}, first at {first}"))
            continue
        seen[section, id] = place
        entry = _entry(SECTIONS[section], id, raw, place, problems)
        if entry is not None:
            entries[id] = entry


def _entry(model: type[Entry], id: str, raw: Any, place: Place, problems: list[Problem]) -> Entry | None:
    listed = len(problems) <= MAX_PROBLEMS
    if len(id) > MAX_NAME:
        text = f"an id of {len(id):,} characters; valid: {MAX_NAME} at most"
        problems.append(place.document.problem(place.path[:1], text) if listed else _unlisted(place.document))
        return None
    if not listed and (not isinstance(raw, dict) or "id" in raw):
        problems.append(_unlisted(place.document))
        return None
    if not isinstance(raw, dict):
        problems.append(place.problem(f"{id} needs fields, found {short(raw)}", valid=_field_names(model)))
        return None
    if "id" in raw:
        problems.append(place.problem("the id is the entry's key; leave this field out", "id"))
        return None
    if _has_too_many(raw):
        path = _too_long(raw) or ()
        problems.append(place.problem(f"more than {MAX_ITEMS} items", *path) if listed else _unlisted(place.document))
        return None
    try:
        return model.model_validate({"id": id, **raw})
    except ValidationError as error:
        if not listed:
            problems.append(_unlisted(place.document, error.error_count()))
            return None
        hidden = error.error_count() - MAX_PROBLEMS
        for path, problem in field_problems(error)[:MAX_PROBLEMS]:
            valid = problem.valid or (_field_names(model) if len(path) == 1 and "unknown" in problem.message else ())
            problems.append(place.problem(str(type(problem)(problem.field, problem.message, valid)), *path))
        if hidden > 0:
            problems.append(replace(place.problem(more(hidden, "problems")), count=hidden))
        return None


def _has_too_many(entry: dict[str, Any]) -> bool:
    """Return whether a list or mapping in an entry has too many items."""
    pending: list[dict[str, Any] | list[Any]] = [entry]
    while pending:
        value = pending.pop()
        for item in value.values() if type(value) is dict else value:
            if type(item) is dict or type(item) is list:
                if len(item) > MAX_ITEMS:
                    return True
                pending.append(item)
    return False


def _too_long(value: Any, path: tuple[str | int, ...] = ()) -> tuple[str | int, ...] | None:
    """Return the path of a list or mapping with too many items; an entry's own fields are counted elsewhere."""
    if not isinstance(value, dict | list):
        return None
    if path and len(value) > MAX_ITEMS:
        return path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return next((found for key, item in items if (found := _too_long(item, (*path, key))) is not None), None)


def _unlisted(document: Document, count: int = 1) -> Problem:
    """Return a problem that is counted only: many are listed already, and finding a place takes time."""
    return Problem(document.name, 1, 1, "and more", count=count)


def _field_names(model: type[Frozen]) -> tuple[str, ...]:
    return tuple(name for name in model.model_fields if name != "id")

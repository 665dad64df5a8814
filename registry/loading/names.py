"""Names in conditions: products become gfx names, aliases become model ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from preshuffle.registry.entries import ArchEntry, Conditional, FusionEntry, Rule
from preshuffle.registry.loading.arch_names import ArchNames
from preshuffle.registry.loading.model_names import ModelNames

CONDITIONAL_SECTIONS = ("contracts", "known_bad", "pad_conventions")
_WITH_ARCHS = ("kernel_families", "backends", "scale_labels")


def translate_names(entries: Mapping[str, dict[str, Any]]) -> None:
    """Replace GPU and model names in conditions by canonical ones.

    A query's arch is completed to a gfx name and its model to the id of the model's entry, so a condition on any other
    name of theirs would never hold. Names that no entry knows stay: a mistake (arch), or the user's own (model).
    """
    archs, models = ArchNames(entries["archs"]), ModelNames(entries["models"].values())
    for section in ("rules", "fusions", *CONDITIONAL_SECTIONS):
        for id, entry in entries[section].items():
            changed = _changed_conditions(entry, archs, models)
            if changed:
                entries[section][id] = type(entry).model_validate({**dict(entry), **changed})
    for section in _WITH_ARCHS:
        for id, entry in entries[section].items():
            names = tuple(dict.fromkeys(map(archs.gfx, entry.archs)))
            if names != entry.archs:
                entries[section][id] = entry.model_copy(update={"archs": names})


def _changed_conditions(
    entry: Rule | Conditional | FusionEntry, archs: ArchNames, models: ModelNames
) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    named = dict(_translated(entry.when, archs, models))
    if named:
        changed["when"] = {**entry.when, **named}
    unless: tuple[Mapping[str, Any], ...] = getattr(entry, "unless", ())
    renamed = tuple({**conditions, **dict(_translated(conditions, archs, models))} for conditions in unless)
    if any(conditions != before for conditions, before in zip(renamed, unless, strict=True)):
        changed["unless"] = renamed
    units = _units(entry.when, archs) if "when" in changed and not isinstance(entry, FusionEntry) else ()
    if units and "cu_num" not in entry.when:
        unstated = (None,) if isinstance(entry, Rule) else ()
        changed["when"]["cu_num"] = (*units, *unstated)
    return changed


def _translated(conditions: Mapping[str, Any], archs: ArchNames, models: ModelNames) -> Iterator[tuple[str, Any]]:
    """Yield the conditions whose names change."""
    for field, known_as in (("arch", archs.gfx), ("model", models.id_of)):
        wanted = conditions.get(field)
        if isinstance(wanted, str):
            named: Any = known_as(wanted)
        elif isinstance(wanted, tuple):
            named = tuple(dict.fromkeys(known_as(name) if isinstance(name, str) else name for name in wanted))
        else:
            continue
        if named != wanted:
            yield field, named


def _units(when: Mapping[str, Any], archs: ArchNames) -> tuple[int, ...]:
    """Return the compute units of the products that conditions name.

    Nothing where the gfx names alone say what is meant: every product has the same number, or none is named.
    """
    found = [named for name in _texts(when.get("arch")) if (named := archs.find(name)) is not None]
    entries = {named.entry.id: named.entry for named in found}
    whole = {named.entry.id for named in found if named.cu_num is None}
    whole |= {id for id, entry in entries.items() if entry.default_cu_num is not None}
    if whole.issuperset(entries):
        return ()
    wanted = dict.fromkeys((named.entry.id, named.product if named.entry.id not in whole else None) for named in found)
    units = [_units_of(entries[id], product) for id, product in wanted]
    return tuple(dict.fromkeys(number for numbers in units for number in numbers))


def _units_of(entry: ArchEntry, product: str | None) -> Iterator[int]:
    """Yield the compute units of a product, or of all, whole and in partitions."""
    for name in entry.cu_num if product is None else (product,):
        if name in entry.cu_num:
            yield entry.cu_num[name]
            yield from entry.partitions.get(name, {}).values()


def _texts(wanted: Any) -> Iterable[str]:
    return (wanted,) if isinstance(wanted, str) else tuple(name for name in wanted or () if isinstance(name, str))

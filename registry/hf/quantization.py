"""Experts' quantization, read from ``quantization_config`` through the book."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.base.frozen import freeze
from preshuffle.registry.base.suggestions import near
from preshuffle.registry.entries import ModelTypeEntry, QuantizationCase, QuantizationEntry
from preshuffle.registry.hf.module_patterns import any_matches_module, matches_module
from preshuffle.registry.loading import Book

SECTION = "quantization_config"
NONE = "none"
_METHOD = f"{SECTION}.quant_method"
_LONGEST = 300
_LEFT_OUT = "-:"
"""Before a regular expression of GPTQ's ``dynamic``: these modules are not quantized."""
_SCALES = {"true": "dynamic", "dynamic": "dynamic", "false": "static", "static": "static"}
_CLASSES = ("Linear", "FusedMoE", "RoutedExperts")
"""Classes of modules by which groups name experts."""


@dataclass(frozen=True, slots=True)
class ExpertQuantization:
    """Quantization method of a layer's experts, with the case that fits.

    Attributes:
        method: the ``quant_method``, ``none`` where the experts are not quantized.
        case: the book's case that fits.
        activation_scales: ``static`` or ``dynamic``; None where the section does not say.
    """

    method: str
    case: QuantizationCase
    activation_scales: str | None = None


def experts_of(config: Mapping[str, Any], entry: ModelTypeEntry, book: Book, layer: int) -> ExpertQuantization:
    """Return the quantization of one layer's experts.

    Args:
        config: the language model's configuration, its ``quantization_config`` in it.
        entry: how its model type names things.
        book: whose quantization methods count.
        layer: exclude lists and layers' own sections name modules of layers.

    Raises:
        QueryError: the method is unknown, or no case of it fits.
    """
    section = config.get(SECTION)
    method = method_of(config)
    modules = _modules(entry, layer)
    known = book.quantizations.get(method)
    if isinstance(section, Mapping) and _leaves_out(section, known, modules, book):
        return ExpertQuantization(NONE, book.quantizations[NONE].cases[0])
    for case in entry.cases:
        if fits(case, config):
            return ExpertQuantization(method, case)
    claimed = [case for case in entry.cases if method in case.when.get(_METHOD, ())]
    if claimed:
        raise QueryError([_no_case(entry.id, claimed, config, "config")])
    if known is None:
        raise QueryError([FieldProblem(_METHOD, f"unknown {method!r}", near(method, _methods(book)))])
    if known.refused:
        raise QueryError([FieldProblem(_METHOD, f"{method!r}: {known.refused}", tuple(_methods(book)))])
    settings = section if isinstance(section, Mapping) else {}
    spec, place = _spec(settings, known, modules)
    for case in known.cases:
        if fits(case, spec):
            _check_alike(settings, known, modules, case)
            return ExpertQuantization(method, case, _activation_scales(spec, known))
    raise QueryError([_no_case(known.id, known.cases, spec, place)])


def _activation_scales(spec: Mapping[str, Any], known: QuantizationEntry) -> str | None:
    """Return whether activations' scales come with the checkpoint or are computed."""
    return _SCALES.get(str(_at(spec, known.activation_scales)).lower()) if known.activation_scales else None


def _check_alike(
    section: Mapping[str, Any], known: QuantizationEntry, modules: list[list[str]], case: QuantizationCase
) -> None:
    """Refuse experts whose gate, up and down are quantized differently.

    Raises:
        QueryError: names the linear layer that differs from the first.
    """
    if not any(section.get(name) for name in (known.named, known.grouped) if name):
        return
    for names in modules:
        spec, place = _spec(section, known, [names])
        other = next((item for item in known.cases if fits(item, spec)), None)
        if other is None or other.facts != case.facts:
            message = f"the experts' linear layers are quantized differently: {names[0]} is not {_words(case)}"
            raise QueryError([FieldProblem(place, message)])


def _words(case: QuantizationCase) -> str:
    return f"{case.facts.weight_dtype} {case.facts.quant_type}"


def method_of(config: Mapping[str, Any]) -> str:
    """Return the configuration's quantization method, or ``none``.

    Raises:
        QueryError: there is a section, but it names no method.
    """
    section = config.get(SECTION)
    if section is None or section == {}:
        return NONE
    if not isinstance(section, Mapping):
        raise QueryError([FieldProblem(SECTION, f"input should be a mapping, found {section!r}")])
    method = section.get("quant_method")
    if not method:
        raise QueryError([FieldProblem(f"{SECTION}.quant_method", "missing from the configuration")])
    return str(method)


def shared_dtype(
    config: Mapping[str, Any], entry: ModelTypeEntry, book: Book, layer: int, routed: ExpertQuantization
) -> str | None:
    """Return the dtype of shared experts quantized otherwise than routed ones.

    None where they are quantized alike.

    Args:
        config: the language model's configuration.
        entry: how its model type names things.
        book: whose quantization methods count.
        layer: whose shared experts.
        routed: the routed experts' quantization.
    """
    experts, section, known = entry.experts, config.get(SECTION), book.quantizations.get(method_of(config))
    if routed.case in entry.cases:
        return routed.case.shared_weight_dtype
    if experts is None or known is None or not isinstance(section, Mapping):
        return None
    down = (experts.shared_linears or experts.linears)[2]
    names = [f"{block}.{experts.shared}.{down}".format(layer=layer) for block in experts.blocks]
    if _excluded(section, known.exclude, [names]):
        return None if routed.method == NONE else "bf16"
    spec, _ = _spec(section, known, [names])
    case = next((case for case in known.cases if fits(case, spec)), None)
    facts, routed_facts = case.facts if case else None, routed.case.facts
    if facts and (facts.weight_dtype, facts.quant_type) == (routed_facts.weight_dtype, routed_facts.quant_type):
        return None
    return (facts.weight_dtype if facts else None) or "unknown"


def describes_experts(config: Mapping[str, Any], entry: ModelTypeEntry, book: Book, layer: int) -> bool:
    """Return whether a configuration's quantization section is about one layer's experts."""
    section = config.get(SECTION)
    known = book.quantizations.get(method_of(config))
    if not isinstance(section, Mapping) or known is None:
        return False
    return not _leaves_out(section, known, _modules(entry, layer), book)


def settings_of(
    section: Mapping[str, Any], known: QuantizationEntry, entry: ModelTypeEntry, layer: int
) -> tuple[Mapping[str, Any], str]:
    """Return the settings that count for one layer's experts, and their path."""
    return _spec(section, known, _modules(entry, layer))


def fits(case: QuantizationCase, config: Mapping[str, Any]) -> bool:
    """Return whether a configuration fits a case of the book.

    Every path of the case has one of the values that it may have.
    """
    return all(any(_same(_at(config, path), value) for value in valid) for path, valid in case.when.items())


def _methods(book: Book) -> list[str]:
    return [method for method, entry in book.quantizations.items() if method != NONE and not entry.refused]


def _modules(entry: ModelTypeEntry, layer: int) -> list[list[str]]:
    """One expert's linear layers, each under all names that wrappers give it."""
    experts = entry.experts
    if experts is None:
        return []
    paths = [f"{block}.{experts.expert}".format(layer=layer, expert=0) for block in experts.blocks]
    return [[f"{path}.{linear}" for path in paths] for linear in experts.linears]


def _leaves_out(
    section: Mapping[str, Any], known: QuantizationEntry | None, modules: list[list[str]], book: Book
) -> bool:
    """Return whether a section leaves the experts unquantized.

    A list names them, or no settings are for them.

    Of an unknown method the lists count that any known one has.
    """
    if not modules:
        return False
    if known is None:
        lists = tuple(dict.fromkeys(name for entry in book.quantizations.values() for name in entry.exclude))
        return _excluded(section, lists, modules)
    if _excluded(section, known.exclude, modules):
        return True
    groups = section.get(known.grouped) if known.grouped else section.get(known.named) if known.named else None
    if not isinstance(groups, Mapping) or not groups or next(_expert_specs(section, known, modules), None) is not None:
        return False
    if known.general:
        general = _at(section, known.general)
        return general is None or (isinstance(general, Mapping) and not any(general.values()))
    return all(_is_pattern(target) for spec in groups.values() for target in _targets(spec))


def _targets(spec: Any) -> list[Any]:
    targets = spec.get("targets") if isinstance(spec, Mapping) else None
    return targets if isinstance(targets, list) else [None]


def _is_pattern(target: Any) -> bool:
    """Return whether a target names modules, not a class."""
    return isinstance(target, str) and bool(target) and not target[0].isupper()


def _excluded(section: Mapping[str, Any], lists: tuple[str, ...], modules: list[list[str]]) -> bool:
    """Return whether lists of a section name each of the modules."""
    patterns = _patterns(section, lists)
    return all(any(any_matches_module([pattern], name) for name in names for pattern in patterns) for names in modules)


def _patterns(section: Mapping[str, Any], lists: tuple[str, ...]) -> list[str]:
    found = [section.get(name) for name in lists]
    listed = [item for items in found if isinstance(items, list) for item in items if isinstance(item, str)]
    mapped = [key for items in found if isinstance(items, Mapping) for key in items if isinstance(key, str)]
    return listed + [f"re:{key.removeprefix(_LEFT_OUT)}" for key in mapped if key.startswith(_LEFT_OUT)]


def _spec(
    section: Mapping[str, Any], entry: QuantizationEntry, modules: list[list[str]]
) -> tuple[Mapping[str, Any], str]:
    """Return the experts' settings and their path: of their own section, their group, or the general one."""
    for spec, path in _expert_specs(section, entry, modules):
        return spec, path
    general = _at(section, entry.general) if entry.general else section
    path = f"{SECTION}.{entry.general}" if entry.general else SECTION
    return (general, path) if isinstance(general, Mapping) else ({}, path)


def _expert_specs(
    section: Mapping[str, Any], entry: QuantizationEntry, modules: list[list[str]]
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield the settings that name the experts, with their paths: sections by module first, then groups."""
    names = [name for linear in modules for name in linear]
    by_module = section.get(entry.named) if entry.named else None
    for pattern, spec in by_module.items() if isinstance(by_module, Mapping) else ():
        if isinstance(spec, Mapping) and any(matches_module(str(pattern), name) for name in names):
            yield spec, f"{SECTION}.{entry.named}.{pattern}"
    groups = section.get(entry.grouped) if entry.grouped else None
    groups = groups if isinstance(groups, Mapping) else {}
    for by_class in (False, True):  # a group that names the experts counts before one that names their class
        for name, spec in groups.items():
            targets = spec.get("targets") if isinstance(spec, Mapping) else None
            for target in targets if isinstance(targets, list) else ():
                if (target in _CLASSES) if by_class else any(matches_module(str(target), module) for module in names):
                    yield spec, f"{SECTION}.{entry.grouped}.{name}"


def _at(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for part in path.split("."):
        if isinstance(value, list) and part.isdecimal():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _same(found: Any, wanted: Any) -> bool:
    """Compare JSON values; true is not 1 here."""
    found = freeze(found)
    return type(found) is type(wanted) and bool(found == wanted)


def _no_case(id: str, cases: Sequence[QuantizationCase], spec: Mapping[str, Any], place: str) -> FieldProblem:
    paths = dict.fromkeys(path for case in cases for path in case.when)
    found = ", ".join(f"{path} {_json(_at(spec, path))}" for path in paths)
    valid = tuple(
        " and ".join(f"{path} {' or '.join(map(_json, values))}" for path, values in case.when.items())
        for case in cases
    )
    return FieldProblem(place, f"no known form of {id}: {found}", valid)


def _json(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"

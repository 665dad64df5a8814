"""Experts' quantization, read from ``quantization_config`` through the book."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.base.frozen import freeze
from preshuffle.registry.base.suggestions import near
from preshuffle.registry.entries import ModelTypeEntry, QuantizationCase, QuantizationEntry
from preshuffle.registry.hf.found_values import found, found_json
from preshuffle.registry.hf.section_modules import SECTION, SectionModules, Settings
from preshuffle.registry.loading import Book

NONE = "none"
_METHOD = f"{SECTION}.quant_method"
_SCALES = {"true": "dynamic", "dynamic": "dynamic", "false": "static", "static": "static"}


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


class ExpertsReader:
    """Reads from a quantization section how experts are quantized, layer by layer.

    Patterns of modules are compiled once for all layers.

    Args:
        config: the language model's configuration, its ``quantization_config`` in it.
        entry: how its model type names things.
        book: whose quantization methods count.

    Raises:
        QueryError: there is a section that names no method.
    """

    def __init__(self, config: Mapping[str, Any], entry: ModelTypeEntry, book: Book) -> None:
        """Find the section and its method."""
        self._config = config
        self._entry = entry
        self._book = book
        self.method = method_of(config)
        self.known = book.quantizations.get(self.method)
        section = config.get(SECTION)
        self.section: Mapping[str, Any] | None = section if isinstance(section, Mapping) else None
        lists = self.known.exclude if self.known else _all_lists(book)
        self._named = SectionModules(self.section or {}, self.known, lists)

    def experts(self, layer: int) -> ExpertQuantization:
        """Return the quantization of one layer's experts.

        Raises:
            QueryError: the method is unknown, or no case of it fits.
        """
        book, entry, known = self._book, self._entry, self.known
        modules = _modules(entry, layer)
        if self._leaves_out(modules):
            return ExpertQuantization(NONE, book.quantizations[NONE].cases[0])
        for case in entry.cases:
            if fits(case, self._config):
                return ExpertQuantization(self.method, case)
        claimed = [case for case in entry.cases if self.method in case.when.get(_METHOD, ())]
        if claimed:
            raise QueryError([_no_case(entry.id, claimed, self._config, "config")])
        if known is None:
            raise QueryError(
                [FieldProblem(_METHOD, f"unknown {found(self.method)}", near(self.method, _methods(book)))]
            )
        if known.refused:
            raise QueryError([FieldProblem(_METHOD, f"{self.method!r}: {known.refused}", tuple(_methods(book)))])
        spec, place = self._spec(known, modules)
        for case in known.cases:
            if fits(case, spec):
                self._check_alike(known, modules, case)
                return ExpertQuantization(self.method, case, _activation_scales(spec, known))
        raise QueryError([_no_case(known.id, known.cases, spec, place)])

    def describes_experts(self, layer: int) -> bool:
        """Return whether the section is about one layer's experts."""
        return (
            self.section is not None and self.known is not None and not self._leaves_out(_modules(self._entry, layer))
        )

    def settings(self, known: QuantizationEntry, layer: int) -> Settings:
        """Return the settings that count for one layer's experts, and their path."""
        return self._spec(known, _modules(self._entry, layer))

    def shared_dtype(self, layer: int, routed: ExpertQuantization) -> str | None:
        """Return the dtype of shared experts quantized otherwise than routed ones.

        None where they are quantized alike.

        Args:
            layer: whose shared experts.
            routed: the routed experts' quantization.
        """
        experts, known = self._entry.experts, self.known
        if routed.case in self._entry.cases:
            return routed.case.shared_weight_dtype
        if experts is None or known is None or self.section is None:
            return None
        down = (experts.shared_linears or experts.linears)[2]
        names = [f"{block}.{experts.shared}.{down}".format(layer=layer) for block in experts.blocks]
        if self._named.leaves_out([names]):
            return None if routed.method == NONE else "bf16"
        spec, _ = self._spec(known, [names])
        case = next((case for case in known.cases if fits(case, spec)), None)
        facts, routed_facts = case.facts if case else None, routed.case.facts
        if facts and (facts.weight_dtype, facts.quant_type) == (routed_facts.weight_dtype, routed_facts.quant_type):
            return None
        return (facts.weight_dtype if facts else None) or "unknown"

    def _leaves_out(self, modules: list[list[str]]) -> bool:
        """Return whether the section leaves the experts unquantized.

        A list names them, or no settings are for them. Of an unknown method the lists count that any known one has.
        """
        if not modules or self.section is None:
            return False
        if self._named.leaves_out(modules):
            return True
        if self.known is None or not self._named.has_settings or self._named.settings(modules) is not None:
            return False
        if self.known.general:
            general = _at(self.section, self.known.general)
            return general is None or (isinstance(general, Mapping) and not any(general.values()))
        return self._named.names_modules_alone

    def _spec(self, known: QuantizationEntry, modules: list[list[str]]) -> Settings:
        """Return the experts' settings and their path: of their own section, their group, or the general one."""
        own = self._named.settings(modules)
        if own is not None:
            return own
        section = self.section or {}
        general = _at(section, known.general) if known.general else section
        path = f"{SECTION}.{known.general}" if known.general else SECTION
        return (general, path) if isinstance(general, Mapping) else ({}, path)

    def _check_alike(self, known: QuantizationEntry, modules: list[list[str]], case: QuantizationCase) -> None:
        """Refuse experts whose gate, up and down are quantized differently.

        Raises:
            QueryError: names the linear layer that differs from the first.
        """
        section = self.section or {}
        if not any(section.get(name) for name in (known.named, known.grouped) if name):
            return
        for names in modules:
            spec, place = self._spec(known, [names])
            other = next((item for item in known.cases if fits(item, spec)), None)
            if other is None or other.facts != case.facts:
                message = f"the experts' linear layers are quantized differently: {names[0]} is not {_words(case)}"
                raise QueryError([FieldProblem(place, message)])


def method_of(config: Mapping[str, Any]) -> str:
    """Return the configuration's quantization method, or ``none``.

    Raises:
        QueryError: there is a section, but it names no method.
    """
    section = config.get(SECTION)
    if section is None or section == {}:
        return NONE
    if not isinstance(section, Mapping):
        raise QueryError([FieldProblem(SECTION, f"input should be a mapping, found {found(section)}")])
    method = section.get("quant_method")
    if not method:
        raise QueryError([FieldProblem(f"{SECTION}.quant_method", "missing from the configuration")])
    return str(method)


def fits(case: QuantizationCase, config: Mapping[str, Any]) -> bool:
    """Return whether a configuration fits a case of the book.

    Every path of the case has one of the values that it may have.
    """
    return all(any(_same(_at(config, path), value) for value in valid) for path, valid in case.when.items())


def _activation_scales(spec: Mapping[str, Any], known: QuantizationEntry) -> str | None:
    """Return whether activations' scales come with the checkpoint or are computed."""
    return _SCALES.get(str(_at(spec, known.activation_scales)).lower()) if known.activation_scales else None


def _words(case: QuantizationCase) -> str:
    return f"{case.facts.weight_dtype} {case.facts.quant_type}"


def _methods(book: Book) -> list[str]:
    return [method for method, entry in book.quantizations.items() if method != NONE and not entry.refused]


def _all_lists(book: Book) -> tuple[str, ...]:
    """Return the keys of lists that any method has."""
    return tuple(dict.fromkeys(name for entry in book.quantizations.values() for name in entry.exclude))


def _modules(entry: ModelTypeEntry, layer: int) -> list[list[str]]:
    """One expert's linear layers, each under all names that wrappers give it."""
    experts = entry.experts
    if experts is None:
        return []
    paths = [f"{block}.{experts.expert}".format(layer=layer, expert=0) for block in experts.blocks]
    return [[f"{path}.{linear}" for path in paths] for linear in experts.linears]


def _at(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for part in path.split("."):
        if isinstance(value, list) and part.isdecimal():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _same(value: Any, wanted: Any) -> bool:
    """Compare JSON values; true is not 1 here."""
    if isinstance(value, list | Mapping) and not (isinstance(wanted, tuple | Mapping) and len(value) == len(wanted)):
        return False
    frozen = freeze(value)
    return type(frozen) is type(wanted) and bool(frozen == wanted)


def _no_case(id: str, cases: Sequence[QuantizationCase], spec: Mapping[str, Any], place: str) -> FieldProblem:
    paths = dict.fromkeys(path for case in cases for path in case.when)
    stated = ", ".join(f"{path} {found_json(_at(spec, path))}" for path in paths)
    valid = tuple(
        " and ".join(f"{path} {' or '.join(map(found_json, values))}" for path, values in case.when.items())
        for case in cases
    )
    return FieldProblem(place, f"no known form of {id}: {stated}", valid)

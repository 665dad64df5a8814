"""Modules that a quantization section names.

Those it leaves out, and those with settings of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from preshuffle.registry.entries import QuantizationEntry
from preshuffle.registry.hf.found_values import cut
from preshuffle.registry.hf.module_patterns import MatchSteps, ModulePatterns

SECTION: Final = "quantization_config"
Settings = tuple[Mapping[str, Any], str]
"""Settings of modules, and their path."""
Found = tuple[Mapping[str, Any], str, str]
"""Settings of modules, the key that holds them, and their name there."""
_LEFT_OUT: Final = "-:"
"""Before a regular expression of GPTQ's ``dynamic``: these modules are not quantized."""
_CLASSES: Final = ("Linear", "FusedMoE", "RoutedExperts")
"""Classes of modules by which groups name experts."""


class SectionModules:
    """Lists, settings by module and groups of a section, prepared once.

    Args:
        section: the quantization section.
        known: its method's entry of the book; None where the method is unknown.
        lists: keys of the lists of modules that are left out.
    """

    def __init__(self, section: Mapping[str, Any], known: QuantizationEntry | None, lists: Sequence[str]) -> None:
        """Gather the patterns."""
        steps = MatchSteps()
        self._left_out = ModulePatterns(_left_out(section.get(name) for name in lists), steps)
        named, grouped = (known.named, known.grouped) if known else (None, None)
        self._by_module = _by_module(section, named)
        self._module_patterns = ModulePatterns((str(pattern) for pattern, _ in self._by_module), steps)
        self._by_group = _by_group(section, grouped)
        self._targets = ModulePatterns((str(target) for target, _ in self._by_group), steps)
        self._of_class = next((settings for target, settings in self._by_group if target in _CLASSES), None)
        key = grouped or named
        groups = section.get(key) if key else None
        self.has_settings = isinstance(groups, Mapping) and bool(groups)
        self.names_modules_alone = isinstance(groups, Mapping) and all(map(_targets_modules, groups.values()))

    def leaves_out(self, modules: Iterable[Sequence[str]]) -> bool:
        """Return whether the lists name each of some modules.

        Each has several names, of which one is enough.
        """
        return all(any(self._left_out.first(name) is not None for name in names) for names in modules)

    def settings(self, modules: Iterable[Sequence[str]]) -> Settings | None:
        """Return the settings that name one of some modules.

        Those by module count first, then groups that name it, then groups that name its class.
        """
        names = [name for names in modules for name in names]
        for patterns, found in ((self._module_patterns, self._by_module), (self._targets, self._by_group)):
            places = [place for name in names if (place := patterns.first(name)) is not None]
            if places:
                return _with_path(found[min(places)][1])
        return None if self._of_class is None else _with_path(self._of_class)


def _with_path(found: Found) -> Settings:
    spec, key, name = found
    return spec, f"{SECTION}.{key}.{cut(str(name))}"


def _by_module(section: Mapping[str, Any], key: str | None) -> list[tuple[str, Found]]:
    found = section.get(key) if key else None
    items = found.items() if isinstance(found, Mapping) else ()
    return [(name, (spec, key or "", name)) for name, spec in items if isinstance(spec, Mapping)]


def _by_group(section: Mapping[str, Any], key: str | None) -> list[tuple[Any, Found]]:
    """Return the settings of groups, one by one for each target."""
    found = section.get(key) if key else None
    groups = found.items() if isinstance(found, Mapping) else ()
    return [
        (target, (spec, key or "", name))
        for name, spec in groups
        for target in (_targets(spec) if isinstance(spec, Mapping) else ())
        if target is not None
    ]


def _left_out(lists: Iterable[Any]) -> Iterator[str]:
    """Yield the patterns of lists, then those of mappings whose keys leave modules out."""
    found = list(lists)
    for items in found:
        if isinstance(items, list):
            yield from (item for item in items if isinstance(item, str))
    for items in found:
        if isinstance(items, Mapping):
            yield from (f"re:{key.removeprefix(_LEFT_OUT)}" for key in items if str(key).startswith(_LEFT_OUT))


def _targets_modules(spec: Any) -> bool:
    """Whether all targets of a group are modules, none a class."""
    return all(isinstance(target, str) and bool(target) and not target[0].isupper() for target in _targets(spec))


def _targets(spec: Any) -> list[Any]:
    targets = spec.get("targets") if isinstance(spec, Mapping) else None
    return targets if isinstance(targets, list) else [None]

"""Unread keys of a quantization section."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from preshuffle.registry.base.errors import FieldProblem
from preshuffle.registry.base.frozen import freeze
from preshuffle.registry.base.globs import glob_test
from preshuffle.registry.base.limits import MAX_PROBLEMS, more
from preshuffle.registry.entries import ModelTypeEntry, QuantizationEntry
from preshuffle.registry.hf.found_values import cut, found
from preshuffle.registry.hf.quantization import ExpertsReader, fits
from preshuffle.registry.hf.section_modules import SECTION

_MATTERS = re.compile(
    r"dtype|bit|expert|moe|stor(e|age)|layout|pack|format|algo|scheme|group|block|scale|spars|transform|order|"
    r"(fp|int|nf|mx|nv)\d|mxfp|nvfp|zero_point|zp|quantized_layers|layer_type|transpos|interleav|permut|shuffl|swizzl|"
    r"rotat|hadamard|codebook",
    re.IGNORECASE,
)
"""Words of keys and values that may be about the experts' dtype or layout."""
_ELSEWHERE = re.compile(r"att(entio)?n|kv|vision|visual|audio|lm_head|embed|rope|rotary|draft|mtp", re.IGNORECASE)
_EXPERTS = re.compile(r"expert|moe|ffn|mlp|w13|w2", re.IGNORECASE)
"""Words of keys that are about other modules, and about experts."""
_BESIDE = re.compile(
    r"quantization|quant(ization)?_(algo|bits|config|method|params|type)|hf_quant_config|store_dtype|"
    r"(routed_)?(expert|moe)s?_(\w+_)?(dtype|bits|quant\w*)"
)
"""Keys beside the quantization section that may be about the experts' dtype."""
_OFF: tuple[Any, ...] = (None, False, "", (), {})


Harmless = Sequence[tuple[Callable[[str], bool], Sequence[Any]]]
"""Tests of keys that the book lists as harmless, and the values with which they are; any where there is none."""


@dataclass(frozen=True, slots=True)
class UnreadKey:
    """Key of a quantization section without a reader.

    Neither a case reads it, nor does the book list it as harmless.

    Attributes:
        path: from the configuration on.
        value: what it is set to.
        matters: whether it speaks of dtypes, experts or layouts.
    """

    path: str
    value: Any
    matters: bool


def unread_problem(keys: Sequence[UnreadKey]) -> FieldProblem:
    """Return the error that names keys which may change the experts' bytes."""
    first, *others = keys
    names = [cut(key.path) for key in others[:MAX_PROBLEMS]]
    hidden = [more(len(others) - MAX_PROBLEMS, "keys")] if len(others) > MAX_PROBLEMS else []
    nor = f" (nor are {', '.join([*names, *hidden])})" if others else ""
    message = f"{found(first.value)} is not read here{nor}, and it may change the experts' dtype or layout"
    valid = ("weight_dtype, quant_type and activation_dtype given beside the configuration",)
    return FieldProblem(cut(first.path), message, valid)


def unread_keys(
    config: Mapping[str, Any], entry: ModelTypeEntry, reader: ExpertsReader, layers: Sequence[int]
) -> tuple[UnreadKey, ...]:
    """Return the unread keys of the settings that apply to experts.

    Args:
        config: the language model's configuration, its ``quantization_config`` in it.
        entry: how its model type names things.
        reader: of the same configuration.
        layers: groups and layers' own settings name modules of layers.
    """
    section, known = reader.section, reader.known
    if section is None or known is None:
        return ()
    claimed = {path for case in entry.cases if fits(case, config) for path in case.when}
    read = {path.removeprefix(f"{SECTION}.") for path in claimed} | {"quant_method", *known.exclude}
    if not known.general and not known.grouped:  # the section itself holds the settings
        read |= _paths(known)
    harmless = [(glob_test(pattern), values) for pattern, values in known.harmless.items()]
    of_all = tuple(_unread(section, SECTION, harmless, read | _structure(known)))
    if not of_all and (claimed or not any(_settings_with_unread(section, known, harmless))):
        return ()  # as in most configurations: no need to look which settings are the experts'
    unread: dict[str, UnreadKey] = {}
    seen: set[int] = set()
    for layer in layers:
        if not reader.describes_experts(layer):
            continue
        unread |= {key.path: key for key in of_all}
        settings, place = reader.settings(known, layer)
        if not claimed and settings is not section and id(settings) not in seen:
            seen.add(id(settings))
            unread |= {key.path: key for key in _unread(settings, place, harmless, _paths(known) | {"targets"})}
    return tuple(unread.values())


def unread_beside(config: Mapping[str, Any], entry: ModelTypeEntry) -> tuple[UnreadKey, ...]:
    """Return unread keys beside the section that name the experts' dtype.

    Args:
        config: the language model's configuration.
        entry: how its model type names things.
    """
    read = {SECTION, *(path for case in entry.cases for path in case.when)}
    off = (*_OFF, config.get("dtype"), config.get("torch_dtype"))
    beside = ((name, value) for name, value in config.items() if name not in read and _BESIDE.fullmatch(name))
    return tuple(UnreadKey(name, value, True) for name, value in beside if freeze(value) not in off)


def _paths(known: QuantizationEntry) -> set[str]:
    return {path for case in known.cases for path in case.when}


def _settings_with_unread(
    section: Mapping[str, Any], known: QuantizationEntry, harmless: Harmless
) -> Iterator[UnreadKey]:
    """Yield the unread keys of a section's settings for any module."""
    read = _paths(known) | {"targets"}
    groups = (section.get(name) for name in (known.named, known.grouped) if name)
    several = (spec for group in groups if isinstance(group, Mapping) for spec in group.values())
    for settings in (section.get(known.general) if known.general else None, *several):
        if isinstance(settings, Mapping):
            yield from _unread(settings, SECTION, harmless, read)


def _structure(known: QuantizationEntry) -> set[str]:
    """Return the keys under which settings for modules are nested."""
    return {path.partition(".")[0] for path in (known.named, known.grouped, known.general) if path}


def _unread(settings: Mapping[str, Any], place: str, harmless: Harmless, read: set[str]) -> Iterator[UnreadKey]:
    for path, value in _leaves(settings, read):
        values = next((values for matches, values in harmless if matches(path)), None)
        frozen = freeze(value)
        if values is None and frozen not in _OFF:
            text = f"{path} {value}" if isinstance(value, str) else path
            yield UnreadKey(f"{place}.{path}", value, _matters(path, text))
        elif values and value is not None and frozen not in values:  # known, and with another value not harmless
            yield UnreadKey(f"{place}.{path}", value, True)


def _matters(path: str, text: str) -> bool:
    if _ELSEWHERE.search(path) and not _EXPERTS.search(text):
        return False
    return _MATTERS.search(text) is not None


def _leaves(settings: Mapping[str, Any], read: set[str], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield paths and values of unread leaf keys, of mappings in lists too (``weight.0.dtype``)."""
    for name, value in settings.items():
        path = f"{above}{name}"
        if path in read:
            continue
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, read, f"{path}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            yield from _leaves({str(place): item for place, item in enumerate(value)}, read, f"{path}.")
        else:
            yield path, value

"""Query fields from a configuration, with one value per layer where listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.base.frozen import freeze
from preshuffle.registry.base.ranges import ranges_text
from preshuffle.registry.base.suggestions import near
from preshuffle.registry.base.words import ACTIVATION_NAMES, activation_of
from preshuffle.registry.entries import ModelTypeEntry
from preshuffle.registry.hf.found_values import cut, found
from preshuffle.registry.hf.paths import value_at

_MOST_KINDS: Final = 8
"""Values of layers that an error lists."""


def values_of(language: Mapping[str, Any], entry: ModelTypeEntry, layers: Sequence[int]) -> dict[str, Any]:
    """Return the query's fields that a language model's configuration states.

    Args:
        language: the language model's configuration.
        entry: how its model type names things.
        layers: the layers that are meant; of a list with one value per layer they must have the same.

    Raises:
        QueryError: a word is unknown, or layers differ.
    """
    fields: dict[str, Any] = {}
    for field, names in entry.fields.items():
        name = key_of(language, names)
        if name is not None:
            value = _of_layers(name, value_at(language, name), layers)
            fields[field] = _translated(entry, field, name, value)
    if fields.get("swiglu_limit") and entry.clamped_activation is not None:
        fields["activation"] = entry.clamped_activation
    return fields


def key_of(language: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Return the first of some keys that a configuration has."""
    return next((name for name in names if value_at(language, name) is not None), None)


def _of_layers(name: str, value: Any, layers: Sequence[int]) -> Any:
    """Return the value that all layers share."""
    if not isinstance(value, list) or not value:
        return value
    by_value: dict[Any, list[int]] = {}
    for layer in layers:
        item = value[layer] if layer < len(value) else None
        by_value.setdefault(freeze(0 if item is None else item), []).append(layer)
    if len(by_value) > 1:
        kinds = "; ".join(
            f"layers {ranges_text(numbers)}: {cut(str(item))}" for item, numbers in list(by_value.items())[:_MOST_KINDS]
        )
        first = next(iter(by_value.values()))[0]
        valid = (f"layer={first} (--hf-layer {first})",)
        raise QueryError([FieldProblem(name, f"differs between layers ({kinds}); say which", valid)])
    return next(iter(by_value))


def _translated(entry: ModelTypeEntry, field: str, name: str, value: Any) -> Any:
    """Return a field's value, translated where the book lists its values."""
    words = entry.values.get(field)
    if words is None:
        return value
    word = words.get(value) if isinstance(value, str) else None
    if word is None and field == "activation" and isinstance(value, str):
        word = activation_of(value)
    if word is None:
        known = (*words, *ACTIVATION_NAMES) if field == "activation" else tuple(words)
        raise QueryError([FieldProblem(name, f"unknown {found(value)}", near(str(value), dict.fromkeys(known)))])
    return word

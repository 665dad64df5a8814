"""Layers that have experts, read from the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.entries import ModelTypeEntry
from preshuffle.registry.hf.paths import value_at

MAX_LAYERS: Final = 1024
"""Layers of a model; published ones have at most 128."""
_DIGITS: Final = 10
"""Characters of a layer's number."""
_DENSE: Final = (0, False, "dense")


def layers_of(config: Mapping[str, Any], entry: ModelTypeEntry) -> int:
    """Return the number of layers in a language model's configuration.

    Raises:
        QueryError: no field states it.
    """
    count = count_layers(config, entry)
    if count is None:
        raise QueryError([FieldProblem(entry.layers[0], "missing from the configuration")])
    return count


def count_layers(config: Mapping[str, Any], entry: ModelTypeEntry) -> int | None:
    """Return the number of layers, stated or counted from their flags.

    Raises:
        QueryError: there are more than any model has.
    """
    stated = number_of(config, entry.layers)
    flags = _list(config, entry.moe_layers.flags) if entry.moe_layers.marks and stated is None else None
    count = len(flags) if flags else stated
    if count is not None and count > MAX_LAYERS:
        name = next(iter(entry.moe_layers.flags if flags else entry.layers))
        raise QueryError([FieldProblem(name, f"{count:,} layers; valid: {MAX_LAYERS:,} at most")])
    return count


def moe_layers_of(config: Mapping[str, Any], entry: ModelTypeEntry) -> tuple[int, ...]:
    """Return the layers that have experts, counted from 0.

    Raises:
        QueryError: the number of layers is missing.

    Example:
        >>> from preshuffle.registry import Registry
        >>> deepseek = Registry.default().book.model_types["deepseek_v3"]
        >>> moe_layers_of({"num_hidden_layers": 6, "first_k_dense_replace": 3}, deepseek)
        (3, 4, 5)
    """
    fields = entry.moe_layers
    first = number_of(config, fields.first_dense) or 0
    count = layers_of(config, entry)
    moe_layers = _numbers(_list(config, fields.listed))
    dense = _numbers(_list(config, fields.dense)) or frozenset()
    flags = _list(config, fields.flags)
    step = number_of(config, fields.every) or 1
    offset = _integer(config, fields.offset)
    frequency = number_of(config, fields.flags) or 1  # some types give a number where others give a list
    last = _integer(config, fields.last)
    end = count if last is None else last + 1 if last >= 0 else count + last + 1
    return tuple(
        layer
        for layer in range(count)
        if (
            layer in moe_layers
            if moe_layers is not None
            else first <= layer < end and (layer - (step - 1 if offset is None else offset)) % step == 0
        )
        and layer not in dense
        and layer % frequency == 0
        and (flags is None or layer >= len(flags) or _marked(flags[layer], fields.marks))
    )


def number_of(config: Mapping[str, Any], names: Sequence[str]) -> int | None:
    """Return the first named field that holds a positive whole number."""
    return next((value for name in names if (value := _whole(value_at(config, name))) is not None and value > 0), None)


def _integer(config: Mapping[str, Any], names: Sequence[str]) -> int | None:
    return next((value for name in names if (value := _whole(value_at(config, name))) is not None), None)


def _is_layer(text: str) -> bool:
    return len(text) <= _DIGITS and text.strip().isdecimal()


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _marked(flag: Any, marks: tuple[str, ...]) -> bool:
    return flag in marks if marks else flag not in _DENSE


def _numbers(values: Sequence[Any] | None) -> frozenset[int] | None:
    return None if values is None else frozenset(value for value in values if isinstance(value, int))


def _list(config: Mapping[str, Any], names: Sequence[str]) -> Sequence[Any] | None:
    """Return the first named list.

    A text is numbers with commas between them, or one letter per layer.
    """
    for name in names:
        value = value_at(config, name)
        if isinstance(value, list | tuple):
            return value
        if isinstance(value, str) and value:
            numbers = value.split(",")
            return [int(number) for number in numbers] if all(_is_layer(number) for number in numbers) else list(value)
    return None

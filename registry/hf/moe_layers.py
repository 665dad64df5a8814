"""Layers that have experts, read from the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.entries import ModelTypeEntry

_DENSE = (0, False, "dense")


def layers_of(config: Mapping[str, Any], entry: ModelTypeEntry) -> int:
    """Return the number of layers in a language model's configuration.

    Raises:
        QueryError: no field states it.
    """
    count = number_of(config, entry.layers)
    if count is None:
        raise QueryError([FieldProblem(entry.layers[0], "missing from the configuration")])
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
    moe_layers = _list(config, fields.listed)
    dense = _list(config, fields.dense) or ()
    flags = _list(config, fields.flags)
    step = number_of(config, fields.every) or 1
    frequency = number_of(config, fields.flags) or 1  # some types give a number where others give a list
    return tuple(
        layer
        for layer in range(layers_of(config, entry))
        if (layer in moe_layers if moe_layers is not None else layer >= first and (layer + 1) % step == 0)
        and layer not in dense
        and layer % frequency == 0
        and (flags is None or layer >= len(flags) or flags[layer] not in _DENSE)
    )


def number_of(config: Mapping[str, Any], names: Sequence[str]) -> int | None:
    """Return the first named field that holds a positive whole number."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _list(config: Mapping[str, Any], names: Sequence[str]) -> Sequence[Any] | None:
    return next((config[name] for name in names if isinstance(config.get(name), list)), None)

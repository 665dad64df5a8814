"""Model type of a configuration: known, wrapped, dense or unknown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.base.suggestions import close_to
from preshuffle.registry.entries import ModelTypeEntry
from preshuffle.registry.hf.found_values import found
from preshuffle.registry.hf.overlay_hint import overlay_hint, sections_of
from preshuffle.registry.hf.paths import value_at
from preshuffle.registry.hf.section_modules import SECTION
from preshuffle.registry.loading import Book

_OLDER_SECTION = "compression_config"
"""Name of the section that compressed-tensors wrote first; engines read it where the other is missing."""
_OUTER = (SECTION, "dtype", "torch_dtype", "_name_or_path", "expert_dtype")
_SIZES = ("hidden_size", "num_hidden_layers", "intermediate_size", "d_model", "n_layer")
"""Fields that a whole configuration has, whatever its type."""


def model_type_of(config: Mapping[str, Any], book: Book) -> ModelTypeEntry:
    """Return the book's entry for a configuration's ``model_type``.

    Of a wrapper it is the entry of its language model, which then says where that one lies.

    Raises:
        QueryError: the type is missing or unknown, or the model has no experts.
    """
    name = config.get("model_type")
    if not isinstance(name, str):
        raise QueryError([FieldProblem("model_type", "missing from the configuration", tuple(book.model_types))])
    entry = book.model_types_by_name.get(name)
    if entry is None or entry.wraps:
        entry = _wrapped(config, name, entry.wraps if entry else sections_of(book), book)
    language = language_model(config, entry)
    if entry.has_experts and not any(_says_experts(value_at(language, path)) for path in entry.has_experts):
        raise QueryError([_dense(name, entry.has_experts)])
    return entry


def language_model(config: Mapping[str, Any], entry: ModelTypeEntry) -> Mapping[str, Any]:
    """Return the language model's configuration, completed from the outer ones."""
    config = _with_section(config)
    for part in filter(None, entry.section.split(".")):
        inner = config.get(part)
        if isinstance(inner, Mapping):
            inner = _with_section(inner)
            outer = {name: config[name] for name in _OUTER if config.get(name) and inner.get(name) is None}
            config = {**inner, **outer}
    return config


def _with_section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a configuration with its quantization section under the name that is read here."""
    older = config.get(_OLDER_SECTION)
    return {**config, SECTION: older} if older and not config.get(SECTION) else config


def _wrapped(config: Mapping[str, Any], name: str, sections: tuple[str, ...], book: Book) -> ModelTypeEntry:
    """Return the entry of a wrapped language model, named from outside.

    Raises:
        QueryError: no section has a known type.
    """
    for section in sections:
        inner = value_at(config, section)
        if not isinstance(inner, Mapping) or not isinstance(inner.get("model_type"), str):
            continue
        entry = book.model_types_by_name.get(inner["model_type"])
        if entry is not None and not entry.wraps:
            return entry.altered(section=f"{section}.{entry.section}".rstrip("."), experts=_prefixed(entry))
        name = inner["model_type"]
    nearest = close_to(name, book.model_types_by_name)
    if not any(_expert_counts(config)):
        if any(name in language for language in _languages(config, sections) for name in _SIZES):
            raise QueryError([_dense(name, ())])
        raise QueryError(
            [FieldProblem("model_type", f"unknown {found(name)}", close_to(name, book.model_types_by_name))]
        )
    nearest = close_to(name, book.model_types_by_name)
    nearby = f" (nearest: {', '.join(nearest)})" if nearest else ""
    message = (
        f"unknown {found(name)}{nearby}; give the layer's sizes as options instead (--model NAME --hidden-size "
        "--intermediate-size --num-experts --top-k --weight-dtype --quant-type --activation --activation-dtype "
        "--gate-up-order --no-bias), or save these lines to a file, correct them and add --book FILE"
    )
    raise QueryError([FieldProblem("model_type", message, lines=overlay_hint(config, book))])


def _prefixed(entry: ModelTypeEntry) -> Any:
    """Return the experts' modules with the prefixes of wrappers."""
    if entry.experts is None:
        return None
    blocks = entry.experts.blocks
    inside = [block.removeprefix("model.") for block in blocks if block.startswith("model.")]
    more = [f"language_model.{block}" for block in blocks] + [f"model.language_model.{block}" for block in inside]
    return entry.experts.altered(blocks=tuple(dict.fromkeys((*more, *blocks))))


def _dense(name: str, fields: tuple[str, ...]) -> FieldProblem:
    because = f"{' and '.join(fields)} say so" if fields else "its configuration counts none"
    return FieldProblem("model_type", f"no experts here: {found(name)} is a dense model ({because})")


def _says_experts(value: Any) -> bool:
    """Return whether a count, counts or a switch means experts."""
    if isinstance(value, list):
        return any(map(_says_experts, value))
    return value is True or (bool(value) and value != 1)


def _expert_counts(config: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """Yield the fields that count experts, of sections too."""
    for name, value in config.items():
        if isinstance(value, Mapping) and depth < 4 and name != SECTION:
            yield from _expert_counts(value, depth + 1)
        elif "expert" in name and ("num" in name or name.startswith("n_")) and _says_experts(value):
            yield name


def _languages(config: Mapping[str, Any], sections: tuple[str, ...]) -> list[Mapping[str, Any]]:
    inner = (value_at(config, section) for section in sections)
    return [config, *(value for value in inner if isinstance(value, Mapping))]

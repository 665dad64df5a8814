"""Query from a Hugging Face ``config.json``, through the book's model types."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.base.ranges import ranges_text
from preshuffle.registry.entries import ModelTypeEntry
from preshuffle.registry.hf.layer_values import values_of
from preshuffle.registry.hf.model_types import language_model, model_type_of
from preshuffle.registry.hf.moe_layers import count_layers, moe_layers_of, number_of
from preshuffle.registry.hf.quantization import SECTION, ExpertQuantization, experts_of, shared_dtype
from preshuffle.registry.hf.quantization_keys import unread_beside, unread_keys, unread_problem
from preshuffle.registry.layer import SharedExperts, counted_fields, expert_slots, read_switches
from preshuffle.registry.loading import Book
from preshuffle.registry.text import parse_json
from preshuffle.registry.values.query import Query

_TORCH_DTYPES = {"bfloat16": "bf16", "float16": "fp16"}


def read_config(config: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    """Return a configuration; read it where a path is given.

    A folder means its ``config.json``.

    Raises:
        QueryError: the file cannot be read or is no JSON object.
    """
    if isinstance(config, Mapping):
        return config
    if not isinstance(config, str | Path):
        raise QueryError([FieldProblem("config", f"a mapping or a path is needed, found {type(config).__name__}")])
    path = Path(config)
    try:
        path = path / "config.json" if path.is_dir() else path
        value = parse_json(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise QueryError([FieldProblem(str(path), "not valid JSON: nested too deeply")]) from None
    except OSError as error:
        raise QueryError([FieldProblem(str(path), f"cannot be read: {error.strerror}")]) from None
    except ValueError as error:
        raise QueryError([FieldProblem(str(path), f"not valid JSON: {error}")]) from None
    if not isinstance(value, dict):
        raise QueryError([FieldProblem(str(path), "a JSON object is needed")])
    return value


def query_of(
    config: Mapping[str, Any] | str | Path, book: Book, given: Mapping[str, Any], layer: int | None = None
) -> Query:
    """Build a query from a configuration.

    Args:
        config: the configuration, its path, or the checkpoint's folder.
        book: whose model types and quantizations count.
        given: the rest of the query; it overrides what the configuration says.
        layer: whose experts are meant; needed only where layers differ.

    Raises:
        QueryError: the configuration cannot be read, or says something that is not known.
    """
    return Query.parse(query_fields(config, book, given, layer))


def query_fields(
    config: Mapping[str, Any] | str | Path, book: Book, given: Mapping[str, Any], layer: int | None = None
) -> dict[str, Any]:
    """Return a query's fields from a configuration and overrides.

    See ``query_of``.
    """
    values = read_config(config)
    entry = model_type_of(values, book)
    language = language_model(values, entry)
    layers = _layers(language, entry, layer)
    quantization = _experts(language, entry, book, layers)
    if not {"weight_dtype", "quant_type"} <= set(given):
        _refuse_unread_keys(values, language, entry, book, layers)
    fields = {**_fields(language, entry, book, quantization, layers), **given}
    _check_fixed(language, entry, book, str(fields["model"]))
    shared = _shared_experts(language, entry, book, quantization)
    if shared and not {"num_experts", "top_k"} & set(given):
        with suppress(QueryError):  # whoever parses the fields says what is wrong with them
            query = Query.parse(fields)
            slots = expert_slots(query, shared, read_switches(query, book), book, given=False)
            fields |= counted_fields(query, slots)
    return fields


def _layers(language: Mapping[str, Any], entry: ModelTypeEntry, layer: int | None) -> tuple[int, ...]:
    """Return the layer that is meant, or all that have experts."""
    known = count_layers(language, entry) is not None
    layers = moe_layers_of(language, entry) if known else (layer or 0,)
    if not layers:
        raise QueryError([FieldProblem(entry.layers[0], "the configuration has no layer with experts")])
    if layer is not None and layer not in layers:
        raise QueryError([FieldProblem("layer", f"layer {layer} has no experts", (ranges_text(layers),))])
    return layers if layer is None else (layer,)


def _experts(
    language: Mapping[str, Any], entry: ModelTypeEntry, book: Book, layers: tuple[int, ...]
) -> ExpertQuantization:
    """Return the quantization that the layers' experts share.

    Layers that differ are an error.
    """
    by_facts: dict[str, tuple[ExpertQuantization, list[int]]] = {}
    for number in layers:
        quantization = experts_of(language, entry, book, number)
        by_facts.setdefault(quantization.case.facts.model_dump_json(), (quantization, []))[1].append(number)
    if len(by_facts) > 1:
        kinds = "; ".join(
            f"layers {ranges_text(numbers)}: {_words(quantization)}" for quantization, numbers in by_facts.values()
        )
        first = next(iter(by_facts.values()))[1][0]
        valid = (f"layer={first} (--hf-layer {first})",)
        raise QueryError([FieldProblem(SECTION, f"experts differ between layers ({kinds}); say which", valid)])
    return next(iter(by_facts.values()))[0]


def _refuse_unread_keys(
    config: Mapping[str, Any],
    language: Mapping[str, Any],
    entry: ModelTypeEntry,
    book: Book,
    layers: tuple[int, ...],
) -> None:
    """Refuse unread quantization keys that may change the experts."""
    found = [key for key in unread_keys(language, entry, book, layers) if key.matters]
    found += unread_beside(language, entry) or unread_beside(config, entry)
    if found:
        raise QueryError([unread_problem(found)])


def unread_notes(config: Mapping[str, Any] | str | Path, book: Book, layer: int | None = None) -> tuple[str, ...]:
    """Return notes on unread quantization keys that seem harmless.

    Raises:
        QueryError: as ``query_of``.
    """
    values = read_config(config)
    entry = model_type_of(values, book)
    language = language_model(values, entry)
    keys = unread_keys(language, entry, book, _layers(language, entry, layer))
    return tuple(f"{key.path} is not read here" for key in keys if not key.matters)


def _fields(
    language: Mapping[str, Any],
    entry: ModelTypeEntry,
    book: Book,
    quantization: ExpertQuantization,
    layers: tuple[int, ...],
) -> dict[str, Any]:
    name = language.get("_name_or_path")
    known = isinstance(name, str) and book.model_names.find(name) is not None
    fields: dict[str, Any] = {"model": name if known else entry.id}  # a fine-tune has a name of its own
    fields["producer"] = (
        entry.producers.get(quantization.method, quantization.method) if quantization.method != "none" else None
    )
    fields.update(entry.constants.given())
    fields.update(values_of(language, entry, layers))
    facts = quantization.case.facts.given()
    if "weight_dtype" not in facts:
        dtype = language.get("dtype", language.get("torch_dtype"))
        if not isinstance(dtype, str) or dtype not in _TORCH_DTYPES:
            raise QueryError([FieldProblem("dtype", f"needed for unquantized experts, found {dtype!r}", _dtypes())])
        facts["weight_dtype"] = facts["activation_dtype"] = _TORCH_DTYPES[dtype]
    if facts.get("quant_type") == "per_Tensor" and quantization.activation_scales:
        fields["activation_scales"] = quantization.activation_scales
    return fields | facts


def _check_fixed(language: Mapping[str, Any], entry: ModelTypeEntry, book: Book, name: str) -> None:
    """Refuse a parameter that differs from the model's entry.

    Queries have no field for it, so the decided call would be wrong.
    """
    for field, names in entry.fixed.items():
        key = next((key for key in names if language.get(key) is not None), None)
        wanted = getattr(book.model_names.find(name), field, None)
        if key is not None and language[key] != wanted:
            text = f"{language[key]!r}, and the book has {field} {wanted} for {name}"
            raise QueryError([FieldProblem(key, text, ("an entry of your own for this model",))])


def _shared_experts(
    language: Mapping[str, Any], entry: ModelTypeEntry, book: Book, quantization: ExpertQuantization
) -> SharedExperts | None:
    """Return the shared experts of a configuration, or None where it has none that are known."""
    count, size = number_of(language, entry.shared_experts) or 0, None
    if not count and (width := number_of(language, entry.shared_expert_size)):
        routed = next((language[n] for n in entry.fields["intermediate_size"] if language.get(n)), None)
        count, size = 1, None if width == routed else width
    experts = entry.experts
    if not count or experts is None or experts.shared is None:
        return None
    layer = moe_layers_of(language, entry)[-1] if count_layers(language, entry) else 0
    return SharedExperts(count, entry.id, None, shared_dtype(language, entry, book, layer, quantization), size)


def _words(quantization: ExpertQuantization) -> str:
    facts = quantization.case.facts
    return f"{facts.weight_dtype} {facts.quant_type}" if facts.weight_dtype else "not quantized"


def _dtypes() -> tuple[str, ...]:
    return tuple(_TORCH_DTYPES)

"""Query from a Hugging Face ``config.json``, through the book's model types."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.base.limits import MAX_PROBLEMS, more
from preshuffle.registry.base.ranges import ranges_text
from preshuffle.registry.entries import ModelTypeEntry
from preshuffle.registry.hf.found_values import cut, found
from preshuffle.registry.hf.layer_values import key_of, values_of
from preshuffle.registry.hf.model_types import language_model, model_type_of
from preshuffle.registry.hf.moe_layers import count_layers, moe_layers_of, number_of
from preshuffle.registry.hf.quantization import ExpertQuantization, ExpertsReader
from preshuffle.registry.hf.quantization_keys import unread_beside, unread_keys, unread_problem
from preshuffle.registry.hf.read_config import naming, read_config
from preshuffle.registry.hf.section_modules import SECTION
from preshuffle.registry.layer import SharedExperts, counted_fields, expert_slots, read_switches
from preshuffle.registry.loading import Book
from preshuffle.registry.values.query import Query

_TORCH_DTYPES = {"bfloat16": "bf16", "float16": "fp16"}


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
    with naming(config):
        values = read_config(config)
        try:
            return Query.parse(_query_fields(values, book, given, layer))
        except QueryError as error:
            raise QueryError([_by_key(problem, values, book, given) for problem in error.problems]) from None


def _by_key(problem: FieldProblem, config: Mapping[str, Any], book: Book, given: Mapping[str, Any]) -> FieldProblem:
    """Return a problem of a query's field under the configuration's key that it is read from."""
    entry = model_type_of(config, book)
    key = key_of(language_model(config, entry), entry.fields.get(problem.field, ()))
    if key is None or problem.field in given:
        return problem
    name = f"{entry.section}.{key}" if entry.section else key
    return FieldProblem(name, problem.message, problem.valid, problem.lines)


def query_fields(
    config: Mapping[str, Any] | str | Path, book: Book, given: Mapping[str, Any], layer: int | None = None
) -> dict[str, Any]:
    """Return a query's fields from a configuration and overrides.

    See ``query_of``.
    """
    with naming(config):
        return _query_fields(read_config(config), book, given, layer)


def _query_fields(values: Mapping[str, Any], book: Book, given: Mapping[str, Any], layer: int | None) -> dict[str, Any]:
    entry = model_type_of(values, book)
    language = language_model(values, entry)
    layers = _layers(language, entry, layer)
    reader = ExpertsReader(language, entry, book)
    quantization = _experts(reader, layers)
    if not {"weight_dtype", "quant_type"} <= set(given):
        _refuse_unread_keys(values, language, entry, reader, layers)
    fields = {**_fields(language, entry, book, quantization, layers), **given}
    _check_fixed(language, entry, book, str(fields["model"]))
    shared = _shared_experts(language, entry, reader, quantization)
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


def _experts(reader: ExpertsReader, layers: tuple[int, ...]) -> ExpertQuantization:
    """Return the quantization that the layers' experts share.

    Layers that differ are an error.
    """
    by_facts: dict[str, tuple[ExpertQuantization, list[int]]] = {}
    for number in layers:
        quantization = reader.experts(number)
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
    reader: ExpertsReader,
    layers: tuple[int, ...],
) -> None:
    """Refuse unread quantization keys that may change the experts."""
    unread = [key for key in unread_keys(language, entry, reader, layers) if key.matters]
    unread += unread_beside(language, entry) or unread_beside(config, entry)
    if unread:
        raise QueryError([unread_problem(unread)])


def unread_notes(config: Mapping[str, Any] | str | Path, book: Book, layer: int | None = None) -> tuple[str, ...]:
    """Return notes on unread quantization keys that seem harmless.

    Raises:
        QueryError: as ``query_of``.
    """
    values = read_config(config)
    entry = model_type_of(values, book)
    language = language_model(values, entry)
    keys = unread_keys(language, entry, ExpertsReader(language, entry, book), _layers(language, entry, layer))
    harmless = [key for key in keys if not key.matters]
    notes = [f"{cut(key.path)} is not read here" for key in harmless[:MAX_PROBLEMS]]
    return (*notes, more(len(harmless) - MAX_PROBLEMS, "keys")) if len(harmless) > MAX_PROBLEMS else tuple(notes)


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
            raise QueryError(
                [FieldProblem("dtype", f"needed for unquantized experts, found {found(dtype)}", _dtypes())]
            )
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
            text = f"{found(language[key])}, and the book has {field} {wanted} for {name}"
            raise QueryError([FieldProblem(key, text, ("an entry of your own for this model",))])


def _shared_experts(
    language: Mapping[str, Any], entry: ModelTypeEntry, reader: ExpertsReader, quantization: ExpertQuantization
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
    return SharedExperts(count, entry.id, None, reader.shared_dtype(layer, quantization), size)


def _words(quantization: ExpertQuantization) -> str:
    facts = quantization.case.facts
    return f"{facts.weight_dtype} {facts.quant_type}" if facts.weight_dtype else "not quantized"


def _dtypes() -> tuple[str, ...]:
    return tuple(_TORCH_DTYPES)

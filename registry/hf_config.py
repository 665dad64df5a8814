"""Reading a Hugging Face ``config.json`` through the book's ``model_types``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preshuffle.registry.books import Book
from preshuffle.registry.entries import ModelTypeEntry
from preshuffle.registry.errors import FieldProblem, QueryError
from preshuffle.registry.near import near
from preshuffle.registry.resolve import find_model

_TORCH_DTYPES = {"bfloat16": "bf16", "float16": "fp16"}


def read_config(config: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    """Return a configuration; read it where a path is given (a folder means its ``config.json``).

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
        value = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise QueryError([FieldProblem(str(path), "not valid JSON: nested too deeply")]) from None
    except OSError as error:
        raise QueryError([FieldProblem(str(path), f"cannot be read: {error.strerror}")]) from None
    except ValueError as error:
        raise QueryError([FieldProblem(str(path), f"not valid JSON: {error}")]) from None
    if not isinstance(value, dict):
        raise QueryError([FieldProblem(str(path), "a JSON object is needed")])
    return value


def model_type_of(config: Mapping[str, Any], book: Book) -> ModelTypeEntry:
    """Return the book's entry for a configuration's ``model_type``.

    Raises:
        QueryError: the type is missing or unknown.
    """
    name = config.get("model_type")
    if not isinstance(name, str):
        raise QueryError([FieldProblem("model_type", "missing from the configuration", tuple(book.model_types))])
    if name not in book.model_types:
        raise QueryError([FieldProblem("model_type", f"unknown {name!r}", near(name, list(book.model_types)))])
    return book.model_types[name]


def quantization_of(config: Mapping[str, Any]) -> str:
    """Return the configuration's quantization method, or ``none``."""
    section = config.get("quantization_config")
    method = section.get("quant_method") if isinstance(section, Mapping) else None
    return str(method) if method else "none"


def query_fields(config: Mapping[str, Any] | str | Path, book: Book) -> dict[str, Any]:
    """Return what a configuration says of a query's fields.

    Raises:
        QueryError: the file, the model type or the quantization is not known.
    """
    values = read_config(config)
    entry = model_type_of(values, book)
    method = quantization_of(values)
    if method not in entry.quantization:
        found = FieldProblem("quantization_config.quant_method", f"unknown {method!r}", tuple(entry.quantization))
        raise QueryError([found])
    name = values.get("_name_or_path")
    known = isinstance(name, str) and find_model(name, book) is not None
    fields: dict[str, Any] = {"model": name if known else entry.id}  # a fine-tune has a name of its own
    dtype = values.get("dtype", values.get("torch_dtype"))
    if isinstance(dtype, str) and dtype in _TORCH_DTYPES:
        fields["activation_dtype"] = _TORCH_DTYPES[dtype]
    fields.update(entry.constants.given())
    fields.update(entry.quantization[method].given())
    for field, names in entry.fields.items():
        found_name = next((name for name in names if values.get(name) is not None), None)
        if found_name is not None:
            fields[field] = values[found_name]
    return fields


def layers_of(config: Mapping[str, Any], book: Book) -> int:
    """Return the number of layers.

    Raises:
        QueryError: the configuration does not say it.
    """
    entry = model_type_of(config, book)
    for name in entry.layers:
        if isinstance(config.get(name), int):
            return int(config[name])
    raise QueryError([FieldProblem(entry.layers[0], "missing from the configuration")])

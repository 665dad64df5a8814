"""Reader of observations: files, folders or standard input.

Query fields given as options replace those of the file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from preshuffle.api.commands.options.input_file import STDIN, place_of, read_document
from preshuffle.api.commands.options.query_options import given_fields, layer_of, option_of
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.hf import query_fields
from preshuffle.registry.text import Document
from preshuffle.registry.values.observation import Observation

SUFFIXES: Final = (".json", ".yaml", ".yml")


def expand(inputs: list[str]) -> Iterator[str]:
    """Yield the files of the arguments; a folder stands for its observations.

    Raises:
        QueryError: a folder cannot be read, or has no such file.
    """
    for text in inputs:
        path = Path(text)
        if text == STDIN or not path.is_dir():
            yield text
            continue
        try:
            files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
        except OSError as error:
            raise QueryError([FieldProblem(text, f"cannot be read: {error.strerror or error}")]) from None
        if not files:
            raise QueryError([FieldProblem(text, f"no observation in this folder; valid: {', '.join(SUFFIXES)}")])
        yield from map(str, files)


def read_observation(path: str, args: argparse.Namespace, registry: Registry) -> Observation:
    """Read one observation; query fields given as options replace the file's.

    Raises:
        QueryError: names each wrong field, by its option or by its place in the file.
        BookError: the text is neither JSON nor YAML; the message has line and column.
    """
    document = read_document(path, "an observation (query, applied)")
    given = given_fields(args, registry)
    value = dict(document.value)
    query = value.get("query", {})
    if isinstance(query, dict):
        merged = {**query, **given}
        if args.hf_config is not None:
            merged = query_fields(args.hf_config, registry.book, merged, layer_of(args))
        value |= {"query": merged} if merged or "query" in value else {}
    try:
        return Observation.parse(value)
    except QueryError as error:
        raise QueryError([_placed(problem, given, document) for problem in error.problems]) from None


def _placed(problem: FieldProblem, given: dict[str, Any], document: Document) -> FieldProblem:
    first, _, rest = problem.field.partition(".")
    name, _, within = rest.partition(".")
    if first == "query" and name in given:
        where = option_of(name) + (f" ({within})" if within else "")
    else:
        where = place_of(document, problem.field)
    valid = problem.valid
    if problem.message == "unknown field" and not valid and "." not in problem.field:
        valid = tuple(Observation.model_fields)
    return FieldProblem(where, problem.message, valid, problem.lines)

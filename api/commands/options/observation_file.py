"""Reader of observations and replica reports: files, folders or standard input.

Query fields given as options replace those of the file, of each group of a report.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from preshuffle.api.commands.options.input_file import STDIN, place_of, read_document
from preshuffle.api.commands.options.query_options import given_fields, layer_of, option_of, unknown_field
from preshuffle.api.fleet import Group, ReplicaReport, parse_observed
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.hf import query_fields
from preshuffle.registry.text import Document
from preshuffle.registry.values.input import Input
from preshuffle.registry.values.observation import Applied, Observation, TensorObservation
from preshuffle.registry.values.query import Query

SUFFIXES: Final = (".json", ".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class ObservedPart:
    """Observation, with its layers in a replica's report."""

    observation: Observation
    layers: str | None = None


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


def read_observed(path: str, args: argparse.Namespace, registry: Registry) -> tuple[ObservedPart, ...]:
    """Read an observation or a replica's report.

    Options replace query fields of the file.

    Raises:
        QueryError: names each wrong field, by its option or by its place in the file.
        BookError: the text is neither JSON nor YAML; the message has line and column.
    """
    document = read_document(path, "an observation (query, applied) or a replica's report (groups)")
    given = given_fields(args, registry)
    value: dict[str, Any] = dict(document.value)
    if "groups" in value:
        if isinstance(value["groups"], list):
            value["groups"] = [_with_options_in_group(group, given, args, registry) for group in value["groups"]]
    else:
        value = _with_options(value, given, args, registry)
    try:
        observed = parse_observed(value)
    except QueryError as error:
        problems = [_placed(problem, given, document) for problem in error.problems]
        raise QueryError(list(dict.fromkeys(problems))) from None
    if isinstance(observed, ReplicaReport):
        return tuple(ObservedPart(group.observation, group.layers) for group in observed.groups)
    return (ObservedPart(observed),)


def _with_options_in_group(group: Any, given: dict[str, Any], args: argparse.Namespace, registry: Registry) -> Any:
    if not isinstance(group, dict) or not isinstance(group.get("observation"), dict):
        return group
    return {**group, "observation": _with_options(group["observation"], given, args, registry)}


def _with_options(
    value: Mapping[str, Any], given: dict[str, Any], args: argparse.Namespace, registry: Registry
) -> dict[str, Any]:
    """Return an observation with the query's fields that are given as options."""
    query = value.get("query", {})
    if not isinstance(query, dict):
        return dict(value)
    merged = {**query, **given}
    if args.hf_config is not None:
        merged = query_fields(args.hf_config, registry.book, merged, layer_of(args))
    return {**value, "query": merged} if merged or "query" in value else dict(value)


def _placed(problem: FieldProblem, given: dict[str, Any], document: Document) -> FieldProblem:
    parts = problem.field.split(".")
    inner = parts[3:] if parts[0] == "groups" and parts[2:3] == ["observation"] else parts
    name, within = (*inner[1:2], ""), ".".join(inner[2:])
    if inner[:1] == ["query"] and name[0] in given:
        where = option_of(name[0]) + (f" ({within})" if within else "")
    else:
        where = place_of(document, problem.field)
    model = ReplicaReport if "groups" in document.value else Observation
    fields = _fields_at(parts, model) if problem.message == "unknown field" and not problem.valid else ()
    if not fields:
        return FieldProblem(where, problem.message, problem.valid, problem.lines)
    message, valid = unknown_field(problem.field, fields)
    return FieldProblem(where, message, valid, problem.lines)


def _fields_at(parts: Sequence[str], model: type[Input]) -> tuple[str, ...]:
    """Return the fields that there are beside the last part of a path."""
    match list(parts[:-1]):
        case []:
            return tuple(model.model_fields)
        case ["groups", _]:
            return tuple(Group.model_fields)
        case ["groups", _, "observation", *inner] | [*inner]:
            return _observation_fields(inner)


def _observation_fields(parts: Sequence[str]) -> tuple[str, ...]:
    match parts:
        case []:
            return tuple(Observation.model_fields)
        case ["query"]:
            return tuple(Query.model_fields)
        case ["applied"]:
            return tuple(Applied.model_fields)
        case ["applied", "tensors", _]:
            return tuple(TensorObservation.model_fields)
        case _:
            return ()

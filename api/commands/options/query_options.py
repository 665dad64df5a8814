"""Options that build a query, one per field of ``Query``.

Options override the query file, which overrides a config.json.
"""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from preshuffle.api.commands.options.failures import UsageError
from preshuffle.api.commands.options.input_file import place_of, read_document
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.base.suggestions import close_to
from preshuffle.registry.hf import query_of, unread_notes
from preshuffle.registry.kernels import TableError
from preshuffle.registry.text import Document
from preshuffle.registry.values.query import Query

_PREFIX = "query_"
INSTALLED = "installed"
"""For ``--aiter``: the one that is installed here, by its version and its own sources."""
_SHOWN = {
    "model": "ID",
    "arch": "GPU",
    "engine": "NAME@VERSION",
    "aiter": "VERSION",
    "aiter_features": "NAME,!NAME",
    "rocm": "VERSION",
    "producer": "NAME",
    "deployment": "NAME",
    "all_to_all": "NAME",
}
_HELP = {
    "model": "a Hugging Face id, a path, or a name of your own",
    "arch": "gfx950, MI355X, or what torch calls it (gfx950:sramecc+:xnack-)",
    "activation_dtype": "what the checkpoint wants",
    "gate_up_order": "row order of w13 in the checkpoint",
    "engine": "for example vllm@0.33.0",
    "num_experts": "of the whole model, fused shared experts counted",
    "cu_num": "compute units of the GPU or its partition, where --arch does not tell",
    "hidden_size": "of the whole model, unsharded",
    "intermediate_size": "of one expert, unsharded",
    "bias": "whether the experts have biases",
    "router_weight_on_input": "whether the router's weight multiplies what goes into an expert (Llama 4)",
    "activation_scales": "static where the checkpoint has them, else dynamic",
    "shard": "how the loader cuts the intermediate size between ranks, where it is not as the engine's rule says",
    "gated": "whether w13 holds gate and up (the default)",
    "tp": "tensor-parallel size",
    "ep": "expert-parallel size",
    "dp": "data-parallel size",
    "all_to_all": "how tokens go between expert-parallel ranks: none, mori, deepep, …",
    "aiter": "AITER's version; installed: the one here, with what its sources show it can do",
    "aiter_features": "what was probed: features that this AITER has or (!) has not, whatever its version",
}


def option_of(field: str) -> str:
    """Return a query field's option, ``--activation-dtype`` for ``activation_dtype``."""
    return f"--{field.replace('_', '-')}"


def add_query_options(parser: argparse.ArgumentParser) -> None:
    """Add the query file, ``--hf-config``, and one option per field of ``Query``."""
    parser.add_argument("file", nargs="?", metavar="QUERY", help="a JSON or YAML file with the query, - for stdin")
    add_query_fields(parser)


def add_query_fields(parser: argparse.ArgumentParser, *, config: bool = True, given: str = "the file") -> None:
    """Add one option per field of ``Query``.

    Args:
        parser: of the command.
        config: add ``--hf-config``, too; without it the command knows the checkpoint.
        given: what says the fields that no option does.
    """
    group = parser.add_argument_group("query", f"every field of a query; options win over {given}")
    if config:
        group.add_argument(
            "--hf-config", metavar="PATH", help="take the model's facts from this config.json (or folder)"
        )
        group.add_argument("--hf-layer", metavar="N", help="the layer whose experts are meant, where layers differ")
    for name, info in Query.model_fields.items():
        dest = _PREFIX + name
        text = _HELP.get(name)
        kinds = kinds_of(info.annotation)
        if name == "env":
            group.add_argument("--env", action="append", metavar="K=V", dest=dest, help="a switch that is set")
        elif name == "tokens":
            group.add_argument("--tokens", action="append", metavar="N,N", dest=dest, help="token counts to predict")
        elif bool in kinds:
            group.add_argument(option_of(name), action=argparse.BooleanOptionalAction, dest=dest, help=text)
        else:
            words = [str(word) for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
            shown = _SHOWN.get(name) or ("N" if int in kinds else "WORD")
            text = "; ".join(part for part in (text, ", ".join(words)) if part) or None
            group.add_argument(option_of(name), metavar=shown, dest=dest, help=text)


def read_query(args: argparse.Namespace, registry: Registry) -> Query:
    """Build the query from options, file and config.json.

    Raises:
        UsageError: no query is given, or an option is no ``K=V``.
        QueryError: names each wrong field, by its option or by its place in the file.
    """
    given = given_fields(args, registry)
    document = read_document(args.file) if args.file else None
    if document is None and not given and args.hf_config is None:
        raise UsageError("no query given; give a file, - for standard input, or options such as --model and --arch")
    fields = {**(document.value if document else {}), **given}
    layer = layer_of(args)
    try:
        if args.hf_config is not None:
            query = query_of(args.hf_config, registry.book, fields, layer)
            for note in unread_notes(args.hf_config, registry.book, layer):
                print(f"preshuffle: note: {note}", file=sys.stderr)
            return query
        return Query.parse(fields)
    except QueryError as error:
        raise QueryError([_placed(problem, given, document) for problem in error.problems]) from None


def named_by_option(error: QueryError, given: dict[str, Any]) -> QueryError:
    """Return an error whose problems name options instead of a query's fields."""
    return QueryError([_placed(problem, given, None) for problem in error.problems])


def layer_of(args: argparse.Namespace) -> int | None:
    """Return the layer that ``--hf-layer`` selects, if any.

    Raises:
        UsageError: it is no number, or there is no configuration that it could be of.
    """
    text: str | None = args.hf_layer
    if text is None:
        return None
    if not text.isdecimal():
        raise UsageError(f"--hf-layer {text!r}; valid: a layer's number, counted from 0")
    if args.hf_config is None:
        raise UsageError("--hf-layer needs --hf-config")
    return int(text)


def given_fields(args: argparse.Namespace, registry: Registry) -> dict[str, Any]:
    """Return the query fields that are given as options.

    Raises:
        UsageError: an option is no ``K=V``, or the installed AITER is meant and there is none.
    """
    given = dict(_given(args))
    return {**given, **_installed(given, registry)} if given.get("aiter") == INSTALLED else given


def _installed(given: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """Return version and features of the installed AITER.

    Features given as an option win over those found in its sources.
    """
    from preshuffle.registry.layer import installed_aiter

    try:
        here = installed_aiter(registry.book)
    except TableError as error:
        text = f"--aiter {INSTALLED}: {error}; name a version instead, as in --aiter 0.1.20"
        raise UsageError(text) from None
    parsed = Query.parse({"model": "any", "arch": "gfx950", "aiter_features": given.get("aiter_features", {})})
    return {"aiter": here.version, "aiter_features": {**here.features, **parsed.aiter_features}}


def _given(args: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    for name in Query.model_fields:
        value = getattr(args, _PREFIX + name)
        if value is None:
            continue
        if name == "env":
            yield name, dict(_switch(item) for item in value)
        elif name == "tokens":
            yield name, [part.strip() for item in value for part in item.split(",")]
        else:
            yield name, value


def _switch(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--env {text!r}; valid: NAME=VALUE")
    return name, value


def _placed(problem: FieldProblem, given: dict[str, Any], document: Document | None) -> FieldProblem:
    first, _, rest = problem.field.partition(".")
    if first in given or (document is None and first in Query.model_fields):
        where = option_of(first) + (f" ({rest})" if rest else "")
    elif document is not None and (first in document.value or problem.message == "missing"):
        where = place_of(document, problem.field)
    else:
        where = problem.field
    if problem.message != "unknown field" or problem.valid:
        return FieldProblem(where, problem.message, problem.valid, problem.lines)
    message, valid = unknown_field(problem.field, tuple(Query.model_fields))
    return FieldProblem(where, message, valid, problem.lines)


def unknown_field(path: str, fields: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return the message on an unknown field, and all fields.

    The message names the closest ones.
    """
    close = " or ".join(close_to(path.rpartition(".")[2], fields))
    return f"unknown field (did you mean {close}?)" if close else "unknown field", fields


def kinds_of(annotation: Any) -> list[Any]:
    """Return the members of a union, without their annotations."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for part in get_args(annotation) for kind in kinds_of(part)]
    if hasattr(annotation, "__metadata__"):
        return kinds_of(annotation.__origin__)
    return [annotation]

"""Command line, environment and kernel call of a decision.

Nothing here decides: commands, options and argument names are the book's.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from preshuffle.registry.base.words import ROLES
from preshuffle.registry.entries import MODEL_WORD, EngineLaunch
from preshuffle.registry.layer import value_of
from preshuffle.registry.loading import Book
from preshuffle.registry.values.decision import Decision
from preshuffle.registry.values.query import Query

_ENUMS: Final[Mapping[str, str]] = {"quant_type": "QuantType", "activation": "ActivationType"}
"""Fields of a call that AITER has enumerations for."""
_SIDE: Final = " \\\n    "


@dataclass(frozen=True, slots=True)
class Launch:
    """What to type for a decision.

    Attributes:
        env: the environment to set, for any engine: of the query, and what the recipe needs beside it.
        command: the engine's command line, without its environment; None where it cannot be told.
        why_not: why it cannot be told; empty where it can.
        notes: what the command line does not say.
        call: the call of the kernels, in Python.
    """

    env: Mapping[str, str]
    command: str | None
    why_not: str
    notes: tuple[str, ...]
    call: str

    @property
    def exports(self) -> str:
        """The environment as lines of a shell."""
        return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in self.env.items())

    @property
    def line(self) -> str | None:
        """Environment and command line in one, to paste into a shell."""
        if self.command is None:
            return None
        return "".join(f"{name}={shlex.quote(value)} " for name, value in self.env.items()) + self.command


class _UnknownError(Exception):
    """A command line cannot be told; the text says why."""


def launch_of(query: Query, decision: Decision, book: Book) -> Launch:
    """Return the command line, environment and call of a decision.

    Example:
        >>> from preshuffle.registry import Registry
        >>> registry = Registry.default()
        >>> query = Query(model="openai/gpt-oss-120b", arch="gfx950", engine="vllm@0.33.0", tp=2)
        >>> launch_of(query, registry.resolve(query), registry.book).line
        'VLLM_ROCM_USE_AITER=1 vllm serve openai/gpt-oss-120b --tensor-parallel-size 2'
    """
    switches = {**query.env, **decision.env}
    env = {name: value for name, value in sorted(switches.items()) if not name.startswith("-")}
    options = {name: value for name, value in sorted(switches.items()) if name.startswith("-")}
    notes: list[str] = []
    command, why_not = None, ""
    try:
        command = _command(query, options, book, notes)
    except _UnknownError as error:
        why_not = str(error)
    return Launch(env, command, why_not, tuple(notes), call_text(decision, book))


def call_text(decision: Decision, book: Book) -> str:
    """Return the call of a decision's kernels, in Python.

    Tensors have the names of their roles. Arguments have the function's own names where the book knows them, else those
    of the decision, which a comment says.
    """
    entry = book.entries["functions"].get(decision.call.function)
    values = dict(_arguments(decision))
    if entry is None or not entry.arguments:
        names = "".join(f"    {name}={value},\n" for name, value in values.items())
        note = f"# The book does not know the arguments of {decision.call.function}; these are the decision's.\n"
        return f"{note}{decision.call.function}(\n{names})"
    passed = {entry.arguments[name]: value for name, value in values.items() if name in entry.arguments}
    enums = sorted({value.partition(".")[0] for value in passed.values()} & set(_ENUMS.values()))
    imports = [f"from aiter import {', '.join(enums)}"] if enums else []
    imports += [f"from {entry.module} import {entry.id}"] if entry.module else []
    arguments = {**{name: name for name in entry.inputs}, **passed}
    lines = "".join(f"    {name}={value},\n" for name, value in arguments.items())
    return "\n".join([*imports, "", f"{entry.id}(\n{lines})"]).lstrip("\n")


def _arguments(decision: Decision) -> Iterator[tuple[str, str]]:
    """Yield the call's arguments, by role or field, as Python."""
    call = decision.call
    bias = {role for role in ROLES if role.endswith("_bias") and not call.bias}
    yield from ((role, role) for role in ROLES if role in decision.tensors and role not in bias)
    fields = call.model_dump(exclude={"function", "backend", "bias", "gate_mode_passed", "weighted_by_caller"})
    if not call.gate_mode_passed:
        del fields["gate_mode"]
    for name, value in fields.items():
        if value is not None and value is not False:
            yield name, "expert_map" if name == "expert_map" else _python(name, value)


def _python(name: str, value: Any) -> str:
    return f"{_ENUMS[name]}.{value}" if name in _ENUMS else repr(value).replace("'", '"')


def _command(query: Query, options: Mapping[str, str], book: Book, notes: list[str]) -> str:
    """Write an engine's command line; append what it omits to the notes.

    Raises:
        _UnknownError: it cannot be told.
    """
    if query.engine is None:
        raise _UnknownError("the query names no engine")
    name = query.engine.name
    entry = book.engines.get(name)
    if entry is None or entry.launch is None:
        raise _UnknownError(f"the book does not know how {name} is started")
    launch = entry.launch
    words = " ".join(shlex.quote(query.model) if word == MODEL_WORD else word for word in launch.command)
    over_dp = launch.over_dp if isinstance(launch.over_dp, bool) else _is_on(launch.over_dp, options, book)
    parts = [words, *_rank_options(query, launch, over_dp, name)]
    parts += _other_options(options, launch, book, notes)
    notes += _unsaid(query, launch, book)
    line = " ".join(parts)
    return line if len(line) <= 100 else _SIDE.join(parts)


def _rank_options(query: Query, launch: EngineLaunch, over_dp: bool, engine: str) -> Iterator[str]:
    ranks = query.tp * query.ep
    if query.ep > 1 and query.tp > 1 and not launch.ep_takes_size:
        if query.ep != query.tp * (query.dp if over_dp else 1):
            raise _UnknownError(
                f"with {launch.ep} each rank of {engine} holds whole experts: no layer has both tp {query.tp} and "
                f"ep {query.ep} there"
            )
        ranks = query.ep
    if over_dp and ranks % query.dp:
        raise _UnknownError(f"dp {query.dp} does not divide the {ranks} ranks that share a layer of {engine}")
    if query.dp > 1 and launch.dp is None:
        raise _UnknownError(f"the book does not know how {engine} is told of data-parallel ranks")
    counted = ranks // query.dp if over_dp else ranks
    if counted > 1:
        yield f"{launch.tp} {counted}"
    if query.dp > 1:
        yield f"{launch.dp} {query.dp}"
    if query.ep > 1:
        yield f"{launch.ep} {query.ep}" if launch.ep_takes_size else launch.ep


def _other_options(options: Mapping[str, str], launch: EngineLaunch, book: Book, notes: list[str]) -> Iterator[str]:
    """Yield the options of query and recipe that are not about ranks."""
    for name, value in options.items():
        flag = book.flags.get(name)
        if name in (launch.tp, launch.dp, launch.ep):
            continue
        if flag is None or not flag.boolean:
            yield f"{name} {shlex.quote(value)}"
        elif value_of(flag, value) == "1":
            yield name
        elif flag.default != "0":
            notes.append(f"{name} must be off ({value}); the book does not know how its command line says so")


def _is_on(name: str, options: Mapping[str, str], book: Book) -> bool:
    flag, text = book.flags.get(name), options.get(name, "")
    return (value_of(flag, text) if flag else text) == "1"


def _unsaid(query: Query, launch: EngineLaunch, book: Book) -> Iterator[str]:
    """Yield notes on what the command line leaves to the reader."""
    model = book.model_names.find(query.model)
    if model is not None:
        published = (model.weight_dtype, model.quant_type)
        wanted = (query.weight_dtype or published[0], query.quant_type or published[1])
        if wanted != published and None not in published:
            how = f", or let the engine quantize while loading ({launch.quantization})" if launch.quantization else ""
            yield (
                f"{model.id} is published with {published[0]} experts ({published[1]}), the query's are {wanted[0]} "
                f"({wanted[1]}): name a checkpoint with those{how}"
            )
    if query.all_to_all not in (None, "none"):
        yield f"tokens go between ranks by {query.all_to_all}: the engine's option for that is not on the line"

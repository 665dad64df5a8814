"""Reads ``config.json``, whoever wrote it: of bounded size and depth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any, Final

from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.hf.found_values import cut
from preshuffle.registry.text import parse_json

MAX_BYTES: Final = 16 << 20
"""Bytes of a file. Published ones that name every expert's linear layers have three million."""
MAX_DEPTH: Final = 32
"""Levels of mappings and lists. Published ones have at most eight."""
_LARGEST: Final = 2**63
_LEAVES: Final = frozenset({str, float, bool, type(None)})


def read_config(config: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    """Return a configuration; read it where a path is given.

    A folder means its ``config.json``.

    Raises:
        QueryError: the file cannot be read, is no JSON object, is too large, or is nested too deeply.
    """
    if isinstance(config, Mapping):
        _check_values(config, "")
        return config
    if not isinstance(config, str | Path):
        raise _problem("config", f"a mapping or a path is needed, found {type(config).__name__}")
    path = Path(config)
    try:
        path = path / "config.json" if path.is_dir() else path
        value = parse_json(_text(path))
    except RecursionError:
        raise _problem(str(path), "not valid JSON: nested too deeply") from None
    except OSError as error:
        raise _problem(str(path), f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise _problem(str(path), f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise _problem(str(path), "a JSON object is needed")
    _check_values(value, f"{path}: ")
    return value


@contextmanager
def naming(config: Mapping[str, Any] | str | Path) -> Iterator[None]:
    """Name the configuration's file in errors of the block."""
    try:
        yield
    except QueryError as error:
        if not isinstance(config, str | Path):
            raise
        raise QueryError([_named(problem, str(config)) for problem in error.problems]) from None


def _named(problem: FieldProblem, file: str) -> FieldProblem:
    if problem.field.startswith(file):
        return problem
    return FieldProblem(f"{file}: {problem.field}", problem.message, problem.valid, problem.lines)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _problem(str(path), f"a configuration has at most {MAX_BYTES >> 20} MiB")
    return data.decode("utf-8")


def _check_values(config: Mapping[str, Any], file: str) -> None:
    """Refuse a mapping that is nested too deeply, and numbers above 64 bits."""
    level: list[tuple[str, Any]] = [("", config)]
    for _ in range(MAX_DEPTH):
        inside: list[tuple[str, Any]] = []
        for name, holder in level:
            for key, value in (
                holder.items() if isinstance(holder, Mapping) else zip(repeat(name), holder, strict=False)
            ):
                kind = type(value)
                if kind in _LEAVES:
                    continue
                if kind is int:
                    _check_number(value, f"{file}{cut(name or str(key))}")
                elif isinstance(value, Mapping | list | tuple):
                    inside.append((name or str(key), value))
        if not inside:
            return
        level = inside
    raise _problem(f"{file}{cut(level[0][0])}", f"nested more than {MAX_DEPTH} levels deep")


def _check_number(value: int, field: str) -> None:
    if not -_LARGEST <= value < _LARGEST:
        digits = math.ceil(value.bit_length() * math.log10(2))
        raise _problem(field, f"a number of at most 64 bits is needed, found one of {digits} digits")


def _problem(field: str, message: str) -> QueryError:
    return QueryError([FieldProblem(field, message)])

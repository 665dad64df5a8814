"""Batches: many inputs in one body, each answered by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import thread_time
from typing import Any, Final

from preshuffle.api.web.problem import ProblemError
from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.values.query import TOKENS

MAX_BATCH: Final = 1000
REQUEST_SECONDS: Final = 0.6
"""Seconds of computing that one request may take before the rest of it is refused."""
MAX_BATCH_TOKENS: Final = 10_000
"""Token counts of all queries of a batch: each costs a kernel prediction."""


def read_batch(value: Any, field: str, query_of: Callable[[Any], Any]) -> list[Any]:
    """Return the inputs of a batch, not validated yet.

    Args:
        value: the body.
        field: its only field, which holds the inputs.
        query_of: returns an input's query, of any type.

    Raises:
        QueryError: not a list of 1 to 1000 inputs, or too many token counts in all.
    """
    items = value.get(field) if isinstance(value, dict) else None
    if not isinstance(items, list) or set(value) != {field} or not 1 <= len(items) <= MAX_BATCH:
        shape = f'{{"{field}": [1 to {MAX_BATCH} {field}]}}'
        raise QueryError([FieldProblem(field, "the body is not a batch", (shape,))])
    tokens = sum(_token_count(query_of(item)) for item in items)
    if tokens > MAX_BATCH_TOKENS:
        text = f"all queries together name {tokens} token counts; valid: {MAX_BATCH_TOKENS} at most"
        raise QueryError([FieldProblem(field, text)])
    return items


def write_batch(items: Sequence[Any], answer: Callable[[Any], bytes], path: str) -> bytes:
    """Return the body that answers a batch, input by input.

    Once the inputs have taken ``REQUEST_SECONDS``, each of the others gets a problem: to be sent again.
    """
    started = thread_time()
    results: list[bytes] = []
    for number, item in enumerate(items):
        if thread_time() - started > REQUEST_SECONDS:
            detail = (
                f"the first {number} inputs took {REQUEST_SECONDS:g} s of computing; send this one in another batch"
            )
            late = write_problem(ProblemError("budget-exhausted", detail), path)
            results += [late] * (len(items) - number)
            break
        results.append(answer(item))
    return b'{"results":[' + b",".join(results) + b"]}"


def write_problem(problem: ProblemError, path: str) -> bytes:
    """Return the result of an input that is a problem."""
    return b'{"problem":' + problem.problem(path).model_dump_json(exclude_none=True).encode() + b"}"


def _token_count(query: Any) -> int:
    """Return the number of token counts in an unvalidated query."""
    tokens = query.get("tokens", TOKENS) if isinstance(query, dict) else ()
    return len(tokens) if isinstance(tokens, list | tuple) else 1

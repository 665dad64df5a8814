"""Limits on request bodies: JSON, at most 1 MiB, of bounded depth."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Depends
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from preshuffle.api.web.problem import ProblemError, invalid_input
from preshuffle.registry.base.errors import FieldProblem
from preshuffle.registry.text import DuplicateKeyError, check_keys

Result = TypeVar("Result")

MAX_BODY: Final = 1 << 20
"""Bytes that a body may have."""
MAX_VALUES: Final = 200_000
"""Values in a body of up to ``MAX_BODY`` bytes: nobody else gets Python's lock while they are made."""
SMALL_BODY: Final = 16 << 10
"""Bytes of a body that is parsed on the event loop."""
BODY_SECONDS: Final = 30.0
"""How long a body may take to arrive."""
_LONG: Final = CapacityLimiter(1)
_BEGINS: Final = (b",", b"[", b"{")
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_LARGE: Final = re.compile(rb"[0-9][eE]\+?[0-9]{3}|[0-9]{300}")


def json_input(parse: Callable[[Any], object], limit: int = MAX_BODY) -> Any:
    """Return the FastAPI dependency that reads a JSON body and parses it.

    FastAPI's own body parameters read any amount, for any time, and refuse with words of pydantic.
    """

    async def read(request: Request) -> object:
        body = await read_json_body(request, limit)
        return await parsed(body, lambda text: parse(parse_json(text)))

    return Depends(read)


async def parsed(body: bytes, parse: Callable[[bytes], Any]) -> Any:
    """Parse a body; large ones in a thread beside the event loop."""
    return parse(body) if len(body) <= SMALL_BODY else await in_turn(parse, body)


async def in_turn(function: Callable[..., Result], *arguments: Any) -> Result:
    """Compute something long in a thread, one at a time.

    Threads that compute take Python's lock from the event loop: each one more makes every other request wait longer.
    """
    return await to_thread.run_sync(function, *arguments, limiter=_LONG)


async def read_json_body(request: Request, limit: int = MAX_BODY) -> bytes:
    """Read a body whose media type is JSON.

    Raises:
        ProblemError: 415 another media type, or as ``read_body``.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        found = f"found {kind!r}" if kind else "no Content-Type was sent"
        raise ProblemError(
            "unsupported-media-type",
            f"Content-Type must be application/json; {found}",
            headers={"Accept": "application/json"},
        )
    return await read_body(request, limit)


def parse_json(body: bytes) -> Any:
    """Parse JSON strictly.

    NaN and Infinity are not JSON; half surrogate pairs are not text; an object has each key once.

    Raises:
        ProblemError: 400 not JSON or nested too deeply, 413 too many values, 422 a key is given twice.
    """
    if len(body) <= MAX_BODY and _values(body) > MAX_VALUES:
        raise ProblemError("body-too-large", f"a body may have {MAX_VALUES:,} values", headers={"Connection": "close"})
    try:
        value = from_json(body, allow_inf_nan=False)
        if _LARGE.search(body):
            json.dumps(value, allow_nan=False)  # 1e999 was read as infinity
        if b":" in body:
            check_keys(body)
        return value
    except DuplicateKeyError as error:
        raise invalid_input([FieldProblem(error.key, "occurs twice in one object")]) from None
    except ValueError as error:
        if "recursion" in str(error):
            raise ProblemError("json-too-deep", str(error)) from None
        raise ProblemError("malformed-json", str(error) if body else "the body is empty; JSON is needed") from None


def _values(body: bytes) -> int:
    """Return about how many values a body has; those in strings count only where they do not matter."""
    count = sum(map(body.count, _BEGINS))
    return count if count <= MAX_VALUES else sum(map(_STRING.sub(b"", body).count, _BEGINS))


async def read_body(request: Request, limit: int = MAX_BODY) -> bytes:
    """Read a body of any media type.

    Raises:
        ProblemError: 413 larger than ``limit`` (nothing more is read), 408 too slow, 400 it ended too early.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
    except TimeoutError:
        detail = f"the body did not arrive within {BODY_SECONDS:g} s"
        raise ProblemError("request-timeout", detail, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise ProblemError("malformed-json", "the connection closed before the body was complete") from None
    return b"".join(parts)


def _too_large(limit: int) -> ProblemError:
    more = "; send several" if limit == MAX_BODY else " here"
    return ProblemError("body-too-large", f"a body may have {limit} bytes{more}", headers={"Connection": "close"})

"""Work that ends when its client leaves."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from anyio import create_task_group
from starlette.requests import Request

from preshuffle.api.web import ProblemError

Result = TypeVar("Result")


async def while_connected(request: Request, work: Awaitable[Result]) -> Result:
    """Return the result of work, which is cancelled when the client leaves.

    Args:
        request: its body has been read.
        work: what to wait for.

    Raises:
        ProblemError: the client has left; nobody reads it.
    """
    results: list[Result] = []
    failures: list[Exception] = []

    async with create_task_group() as group:

        async def run() -> None:
            try:
                results.append(await work)
            except Exception as error:  # not out of the group, which would wrap it
                failures.append(error)
            group.cancel_scope.cancel()

        group.start_soon(run)
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()
    if failures:
        raise failures[0]
    if not results:
        raise ProblemError("interrupted", "the client has left")
    return results[0]

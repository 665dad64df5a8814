"""Requests to a running service or to a service's store.

``--server`` names a running service, ``--db`` the store of one, which is read without it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from preshuffle.api.commands.options.failures import UNKNOWN, UsageError, needs_extra
from preshuffle.registry.base.errors import PreshuffleError, QueryError

if TYPE_CHECKING:
    import httpx

    from preshuffle.api.client import Client, Reply
    from preshuffle.registry import Registry

T = TypeVar("T")

SERVER: Final = "PRESHUFFLE_SERVER"
TOKEN: Final = "PRESHUFFLE_TOKEN"
_TIMEOUT_S: Final = 30.0
"""Seconds that a command waits for a service in all, where it has no ``--timeout``."""
_LONGEST_S: Final = 86_400.0


class ServiceError(PreshuffleError, RuntimeError):
    """Error for a service that is unreachable or refuses a request.

    Attributes:
        problem: the problem document that it answered with, if any.
    """

    exit_code = UNKNOWN

    def __init__(self, message: str, problem: Mapping[str, Any] | None = None) -> None:
        """Keep the problem document."""
        super().__init__(message)
        self.problem = problem or {"type": "urn:preshuffle:problem:service-unavailable"}

    @property
    def kind(self) -> str:
        """Last part of the problem's type, such as ``unknown-deployment``."""
        return str(self.problem["type"]).rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class Deadline:
    """Time by which a command's requests must be answered, all together."""

    seconds: float
    end: float


def add_service_options(parser: argparse.ArgumentParser, timeout_s: float = _TIMEOUT_S) -> None:
    """Add ``--server``, ``--db`` and ``--timeout``."""
    group = parser.add_argument_group("service")
    group.add_argument("--server", metavar="URL", help=f"the service (else ${SERVER}); its token is ${TOKEN}")
    group.add_argument("--db", metavar="URL", help="instead: a service's store, as serve --db takes it, only read")
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        default=f"{timeout_s:g}",
        help=f"give the service so many seconds in all (default {timeout_s:g})",
    )


def add_server_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--server`` to a command that otherwise uses its own book."""
    group = parser.add_argument_group("service")
    group.add_argument(
        "--server", metavar="URL", help=f"use this service, or the own book where it is unreachable (${TOKEN})"
    )


def query_service(args: argparse.Namespace, call: Callable[[Client], Reply[T]], registry: Registry) -> T:
    """Query the service; fall back to the own book if unreachable.

    A line on standard error reports the fallback.

    Raises:
        UsageError: a book or tables are named too: the service uses its own.
    """
    if args.book or args.tables:
        raise UsageError("--server uses the service's own book and tables; omit --book and --tables")
    check_url(args.server)
    with needs_extra("asking a service", "client"):
        from preshuffle.api.client import Client
    with Client(args.server, token=os.environ.get(TOKEN), timeout=_TIMEOUT_S, registry=registry, quiet=True) as client:
        reply = call(client)
    if reply.why:
        print(f"preshuffle: {reply.why}; the embedded book answers", file=sys.stderr)
    return reply.value


def check_url(server: str) -> None:
    """Refuse a service's address that is no HTTP URL.

    Raises:
        UsageError: scheme or host is missing.
    """
    scheme, mark, rest = server.partition("://")
    if not mark:
        raise UsageError(f"--server {server!r} has no scheme; did you mean http://{server}?")
    if scheme not in ("http", "https") or not rest.strip("/") or "?" in rest or "#" in rest:
        raise UsageError(f"--server {server!r}; valid: http://HOST:PORT or https://HOST/PATH")


def send_request(args: argparse.Namespace, method: str, path: str, **request: Any) -> bytes:
    """Send one request to the service or store; return the body.

    Raises:
        UsageError: the options name nothing, or both.
        ServiceError: there was no answer, or it was a refusal.
        QueryError: the service found the input wrong.
    """
    deadline = _deadline(args)
    server: str = args.server or ("" if args.db else os.environ.get(SERVER, ""))
    if bool(server) == bool(args.db):
        raise UsageError(f"name one service: --server URL (or ${SERVER}), or --db URL of a service's store")
    if server:
        check_url(server)
    with needs_extra("asking a service", "service" if args.db else "client"):
        answer = (
            _request_store(args.db, method, path, request)
            if args.db
            else _request_server(server, method, path, request, deadline)
        )
    if answer.status_code >= 400:
        raise _refusal(answer, f"{method} {path}")
    return answer.content


def _deadline(args: argparse.Namespace) -> Deadline:
    """Return the command's deadline, which begins with its first request.

    Raises:
        UsageError: ``--timeout`` is no number of seconds.
    """
    if not hasattr(args, "deadline"):
        try:
            seconds = float(args.timeout)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= _LONGEST_S:
            raise UsageError(f"--timeout {args.timeout!r}; valid: seconds, up to {_LONGEST_S:g}")
        args.deadline = Deadline(seconds, time.monotonic() + seconds)
    deadline: Deadline = args.deadline
    return deadline


def _request_server(server: str, method: str, path: str, request: dict[str, Any], deadline: Deadline) -> httpx.Response:
    import anyio
    import httpx

    token = os.environ.get(TOKEN)
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def send() -> httpx.Response:
        with anyio.fail_after(max(deadline.end - time.monotonic(), 0.0)):
            async with httpx.AsyncClient(base_url=server.rstrip("/"), headers=headers, timeout=None) as client:
                return await client.request(method, path, **request)

    try:
        return anyio.run(send)
    except TimeoutError:
        raise ServiceError(
            f"{server} does not answer: no whole response within {deadline.seconds:g} s (--timeout SECONDS)"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServiceError(f"{server} does not answer: {error or type(error).__name__}") from None


def _request_store(db: str, method: str, path: str, request: dict[str, Any]) -> httpx.Response:
    """Answer a request as the service would, from its store.

    The book is the one that the service announced there.
    """
    import anyio
    import httpx

    from preshuffle.api.app import create_app
    from preshuffle.api.settings import Settings
    from preshuffle.api.store import Store, announced_registry

    store = Store(db)
    try:
        store.check_current()
        app = create_app(Settings(), announced_registry(store), store)

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://store") as client:
                return await client.request(method, path, **request)

        return anyio.run(send)
    finally:
        store.close()


def _refusal(answer: httpx.Response, what: str) -> PreshuffleError:
    from preshuffle.api.client import faults_of, not_ours, read_problem

    problem = read_problem(answer)
    if problem is None:
        return ServiceError(not_ours(answer, what))
    faults = faults_of(problem)
    if faults:
        return QueryError(faults)
    refused = ServiceError(str(problem["detail"]), problem)
    if refused.kind != "unauthorized":
        return refused
    hint = f"it is that of ${TOKEN}" if os.environ.get(TOKEN) else f"set ${TOKEN} to one"
    return ServiceError(f"{refused}; {hint}", problem)

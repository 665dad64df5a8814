"""Identity of a request, which the history records for changes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import Scope


def set_identity(scope: Scope, name: str) -> None:
    """Record whose token a request carries."""
    scope.setdefault("state", {})["identity"] = name


def identity_of(scope: Scope) -> str | None:
    """Return the name of the request's token, or None."""
    name = scope.get("state", {}).get("identity")
    return name if isinstance(name, str) and name else None


def request_identity(request: Request) -> str:
    """Return the name of the request's token, or the client's address."""
    name = identity_of(request.scope)
    if name is not None:
        return name
    return f"anonymous at {request.client.host}" if request.client else "anonymous"

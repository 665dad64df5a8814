"""Who asks: the name that goes into the history of what they change."""

from __future__ import annotations

from starlette.requests import Request


def caller(request: Request) -> str:
    """Return the caller's name: the token's, or the address where nothing asks for tokens."""
    name = request.scope.get("state", {}).get("caller")
    if isinstance(name, str) and name:
        return name
    return f"anonymous at {request.client.host}" if request.client else "anonymous"

"""Root path: where behind a proxy the service's own paths begin."""

from __future__ import annotations

from starlette.types import Scope


def set_root(scope: Scope, root: str) -> str:
    """Add the root path to a request's scope; return the path within.

    ASGI's ``path`` has the root path at its beginning. A proxy may have cut it off, or not: both are the same request.
    ``root`` has no slash at its end.
    """
    path: str = scope["path"]
    within = path.removeprefix(root) if path == root or path.startswith(f"{root}/") else path
    within = within or "/"
    scope["path"] = root + within
    scope["root_path"] = root
    return within


def path_within(scope: Scope) -> str:
    """Return a request's path without the root path."""
    path: str = scope["path"]
    root: str = scope.get("app_root_path", scope.get("root_path", ""))  # a mount adds its own path to the second
    return path.removeprefix(root) or "/"

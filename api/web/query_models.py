"""Query parameters that FastAPI reads."""

from __future__ import annotations

from preshuffle.registry.base.frozen import Frozen


class Params(Frozen, defer_build=False):
    """Base of query parameters: FastAPI wants their schema when a route is made."""

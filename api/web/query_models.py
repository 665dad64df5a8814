"""Base class of query parameters that FastAPI validates."""

from __future__ import annotations

from preshuffle.registry.base.frozen import Frozen


class Params(Frozen, defer_build=False):
    """Base class of query parameters, whose schema FastAPI needs at once."""

"""Errors of the service: it cannot start, or its store fails."""

from __future__ import annotations

from preshuffle.registry.base.errors import PreshuffleError


class ServeError(PreshuffleError):
    """The service cannot start; the text says what to do."""


class StoreError(PreshuffleError):
    """The store cannot be opened or does not answer.

    The text names it and says what to do.
    """


class StoreFullError(StoreError):
    """The store's disk is full; nothing was changed, and reading works."""


class QuotaError(StoreError):
    """The quota of stored replicas or bytes is used up.

    Nothing was changed.
    """

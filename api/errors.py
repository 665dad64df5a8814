"""Errors of the service itself. Those of a query, a book or a layout are the registry's."""

from __future__ import annotations

from preshuffle.registry.base.errors import PreshuffleError


class ServeError(PreshuffleError):
    """The service cannot start: an address that is taken or not allowed. The text says what to do."""


class StoreError(PreshuffleError):
    """The store cannot be opened or does not answer. The text names it and says what to do."""


class StoreFullError(StoreError):
    """The store's disk is full: nothing was changed, and what is stored can be read."""

"""Feed of committed state changes: one place to subscribe to them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from preshuffle.api.store import StateChange, Store, claim_state_changes

log = logging.getLogger("preshuffle.api")

Listener = Callable[[Sequence[StateChange]], None]
"""Called with committed changes, the oldest first, in the background loop's thread: it must not block for long."""


class ChangeFeed:
    """Passes every committed state change to listeners.

    Who made it does not matter: a report, a re-check in a child process, the liveness check, another service on the
    same store. Of several services on one store only one passes each change on. A process that dies between reading
    and passing on loses what it had read.
    """

    def __init__(self, store: Store) -> None:
        """Start without listeners."""
        self._store = store
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        """Have a listener called with changes from now on."""
        self._listeners.append(listener)

    def publish(self) -> int:
        """Pass new changes to every listener; return their number.

        A listener that fails is logged and keeps none from the others.

        Raises:
            StoreError: the store does not answer.
        """
        published = 0
        while changes := claim_state_changes(self._store):
            for listener in self._listeners:
                try:
                    listener(changes)
                except Exception:
                    log.exception("a listener of state changes failed; it continues with the next ones")
            published += len(changes)
        return published

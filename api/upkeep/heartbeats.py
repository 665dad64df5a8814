"""Group commit of heartbeats.

Those that arrive while one group is written form the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from preshuffle.api.errors import StoreError
from preshuffle.api.fleet import Beat
from preshuffle.api.store import ReplicaKey, Store, in_thread

GATHER_S: Final = 0.01
"""Seconds that the first heartbeat of a group waits for others."""
_Waiting = tuple[ReplicaKey, "asyncio.Future[Beat | None]"]


class Heartbeats:
    """Group commit of one event loop's heartbeats, each acknowledged once on disk."""

    def __init__(self, store: Store) -> None:
        """Write to this store."""
        self._store = store
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None

    async def beat(self, name: str, replica: int) -> Beat | None:
        """Store a heartbeat; return None for an unknown replica.

        Raises:
            StoreError: the store does not answer or its disk is full; the heartbeat is not written.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Beat | None] = loop.create_future()
        self._waiting.append(((name, replica), future))
        if self._writer is None:
            self._writer = loop.create_task(self._write())
        return await future

    async def _write(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(GATHER_S)
                group, self._waiting = self._waiting, []
                await self._write_group(group)
        finally:
            self._writer = None

    async def _write_group(self, group: Sequence[_Waiting]) -> None:
        try:
            known = await in_thread(self._store.beat, [replica_key for replica_key, _ in group])
        except StoreError as error:
            for _, future in group:
                if not future.done():
                    future.set_exception(type(error)(*error.args))
            return
        except BaseException:
            for _, future in group:
                future.cancel()
            raise
        for replica_key, future in group:
            if not future.done():  # its client may have disconnected
                future.set_result(known.get(replica_key))

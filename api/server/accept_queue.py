"""Queue of connections that wait to be accepted.

Connections whose clients have left fill it: each would be accepted, read, parsed and answered before those behind it.
Where many wait, a connection that its client has closed is dropped unread.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

BACKLOG: Final = 1024
"""Connections that may wait; the event loop accepts as many in 0.1 s. Linux drops more, and clients retry after 1 s."""
_MANY: Final = 64
"""Waiting connections from which the service is in haste."""
_WAITING_AT: Final = 24
"""Offset of ``tcpi_unacked`` in Linux' ``struct tcp_info``: of a listening socket, how many connections wait."""
_STATE_AT: Final = 0
_CLOSED: Final = frozenset({7, 8})
"""Linux' TCP states CLOSE and CLOSE_WAIT: the client has reset the connection, or sends nothing more."""


class AcceptQueue:
    """Connections that wait at a listening socket."""

    def __init__(self, listener: socket.socket) -> None:
        """Look at a socket that listens."""
        self._listener = listener

    @property
    def is_long(self) -> bool:
        """Whether many connections wait; False where the system does not tell."""
        info = _tcp_info(self._listener)
        return info is not None and struct.unpack_from("=I", info, _WAITING_AT)[0] >= _MANY

    def drops(self, transport: asyncio.Transport) -> bool:
        """Return whether an accepted connection is not worth reading.

        Its client has closed it, and many others wait.

        A client that closes its own direction alone and waits for the answer looks alike: while many wait, it gets
        none.
        """
        if not self.is_long:
            return False
        info = _tcp_info(transport.get_extra_info("socket"))
        return info is not None and info[_STATE_AT] in _CLOSED


def _tcp_info(endpoint: socket.socket | None) -> bytes | None:
    """Return the start of Linux' ``struct tcp_info``; None: closed, not TCP, or another system."""
    option = getattr(socket, "TCP_INFO", None)
    if endpoint is None or option is None:
        return None
    try:
        info = endpoint.getsockopt(socket.IPPROTO_TCP, option, _WAITING_AT + 4)
    except OSError:
        return None
    return info if len(info) == _WAITING_AT + 4 else None

"""Processes and ports of this machine."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def is_running(process: int) -> bool:
    """Whether there is such a process that has not ended; it may end at any moment."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    return False


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses, and that nobody gets unasked.

    The system hands out ports of its ephemeral range to every client and to every server that asks for any: such a port
    may be taken before its test listens, or while its server is down.
    """
    first = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.exists() else 32_768
    while True:
        port = random.SystemRandom().randrange(max(1_024, first // 2), first) if first > 2_048 else 0
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as found:
            return int(found.getsockname()[1])

"""ASGI front, listening sockets and connection limits."""

from preshuffle.api.server.front import Door
from preshuffle.api.server.heartbeat_route import HotBeats
from preshuffle.api.server.listen import bind, check_host, run, url_of
from preshuffle.api.server.management import served_beside

__all__ = [
    "Door",
    "HotBeats",
    "bind",
    "check_host",
    "run",
    "served_beside",
    "url_of",
]

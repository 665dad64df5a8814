"""ASGI front, listening sockets and connection limits."""

from preshuffle.api.server.front import Find, Front
from preshuffle.api.server.heartbeat_route import HEARTBEAT_PATH, HeartbeatRoute
from preshuffle.api.server.listen import bind, check_host, own_names, run, url_of
from preshuffle.api.server.management import served_beside
from preshuffle.api.server.root_path import path_within

__all__ = [
    "HEARTBEAT_PATH",
    "Find",
    "Front",
    "HeartbeatRoute",
    "bind",
    "check_host",
    "own_names",
    "path_within",
    "run",
    "served_beside",
    "url_of",
]

"""ASGI front, listening sockets and connection limits."""

"""A whole response whose bytes are known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent.

    Attributes:
        status: the status code.
        headers: the headers; a body's length is among them.
        body: the body.
        head: the status line and the headers as HTTP/1.1 writes them, without the empty line that ends them.
    """

    status: int
    headers: tuple[Header, ...]
    body: bytes
    head: bytes

    @classmethod
    def of(cls, status: int, headers: Sequence[Header], body: bytes = b"") -> Reply:
        """Write the head."""
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()]
        lines += [name + b": " + value + b"\r\n" for name, value in headers]
        return cls(status, tuple(headers), body, b"".join(lines))

    def with_header(self, name: bytes, value: bytes) -> Reply:
        """Return the same response with one header more."""
        return Reply.of(self.status, (*self.headers, (name, value)), self.body)

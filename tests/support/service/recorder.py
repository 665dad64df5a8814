"""A service in memory for clients: it answers reports as the real one does, or as a test wants."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

Answer = Callable[[httpx.Request], httpx.Response | None]
"""Answer to a request; None: what the service would say."""


def problem(status: int, kind: str, **headers: str) -> httpx.Response:
    """Return a problem document as the service writes it."""
    named = {"Content-Type": "application/problem+json", **headers}
    body = {"type": f"urn:preshuffle:problem:{kind}", "title": kind, "status": status, "detail": f"it is {kind}"}
    return httpx.Response(status, json=body, headers=named)


@dataclass
class RecordingService:
    """Answers of a service, and what it was asked.

    Attributes:
        reports: the stored report by replica.
        requests: method and replica of every request.
        puts: every report that was stored anew, in order: replica and node.
        answer: what is answered instead.
        verdict: of every report.
    """

    reports: dict[int, Any] = field(default_factory=dict)
    requests: list[tuple[str, int]] = field(default_factory=list)
    puts: list[tuple[int, str]] = field(default_factory=list)
    answer: Answer | None = None
    verdict: str = "ok"
    tokens: list[str | None] = field(default_factory=list)

    @property
    def transport(self) -> httpx.MockTransport:
        """What connects to it."""
        return httpx.MockTransport(self.handle)

    def count(self, method: str) -> int:
        """Return how many requests had a method."""
        return sum(asked == method for asked, _ in self.requests)

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        replica = int(request.url.params["replica"])
        self.requests.append((request.method, replica))
        self.tokens.append(request.headers.get("authorization"))
        other = self.answer(request) if self.answer else None
        return other or getattr(self, request.method.lower())(replica, request)

    def put(self, replica: int, request: httpx.Request) -> httpx.Response:
        """Store a report."""
        report = json.loads(request.content)
        changed = self.reports.get(replica) != report
        self.reports[replica] = report
        if changed:
            self.puts.append((replica, report["node"]))
        moment = "2026-01-01T00:00:00Z"
        receipt = {"name": "prod", "replica": replica, "revision": 1, "changed": changed, "created_at": moment}
        receipt |= {"replaced_at": moment, "verdict": self.verdict, "codes": [], "fixes": ["mend it"]}
        return httpx.Response(200, json=receipt)

    def post(self, replica: int, request: httpx.Request) -> httpx.Response:
        """Take a heartbeat."""
        if replica not in self.reports:
            return problem(404, "unknown-deployment")
        return httpx.Response(200, json={"name": "prod", "replica": replica, "seen_at": "2026-01-01T00:00:00Z"})

    def delete(self, replica: int, request: httpx.Request) -> httpx.Response:
        """Forget a replica."""
        return httpx.Response(204) if self.reports.pop(replica, None) else problem(404, "unknown-deployment")

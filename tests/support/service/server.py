"""The service as a user starts it, in a process of its own; and the application itself, without one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from starlette.types import ASGIApp

DEFAULT_TIMEOUT_CONFIG.read = DEFAULT_TIMEOUT_CONFIG.connect = (
    60.0  # a busy machine may need more than 5 s for an answer
)

COMMAND = (sys.executable, "-m", "preshuffle.api.cli", "serve")
OBSERVATION: dict[str, Any] = {
    "query": {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "fp4x2", "tp": 2},
    "applied": {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "sep16", "is_shuffled": True}}},
}
REPORT: dict[str, Any] = {"groups": [{"layers": "0-35", "observation": OBSERVATION}], "node": "node-1"}


@dataclass(frozen=True)
class Server:
    """A running service."""

    process: subprocess.Popen[str]
    url: str
    line: str = ""

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """End it as a service manager would; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def environment(**settings: str) -> dict[str, str]:
    """Return the environment of a service, without what this machine may have set."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PRESHUFFLE_")}
    return {**clean, **{f"PRESHUFFLE_{name.upper()}": value for name, value in settings.items()}}


@contextmanager
def running_server(db: Path | str, *options: str, stderr: bool | Path = False, **settings: str) -> Iterator[Server]:
    """Start the service on a free port of the loopback interface, and end it.

    ``stderr`` keeps its log to be read, in a pipe or a file.

    ``db`` is a file for SQLite, or the URL of a database.
    """
    url = db if isinstance(db, str) else f"sqlite:///{db}"
    with ExitStack() as stack:
        pipe = subprocess.PIPE if stderr else None
        process = subprocess.Popen(
            [*COMMAND, "--port", "0", "--db", url, *options],
            env=environment(**settings),
            stdout=subprocess.PIPE,
            stderr=stack.enter_context(stderr.open("wb")) if isinstance(stderr, Path) else pipe,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        match = re.search(r"http://\S+", line)
        assert match, f"the service did not say where it listens: {line!r}"
        yield Server(process, match.group(), line)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=60)
        process.stdout.close()
        if process.stderr is not None:
            process.stderr.close()


class Client:
    """Asks an application without a server."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                return await client.request(method, path, **more)

        return anyio.run(ask)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def put(self, path: str, **more: Any) -> httpx.Response:
        return self.request("PUT", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)

    def delete(self, path: str, **more: Any) -> httpx.Response:
        return self.request("DELETE", path, **more)

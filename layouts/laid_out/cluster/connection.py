"""Connection to a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from threading import current_thread, main_thread
from typing import Any, Final, TextIO, cast
from urllib.parse import urlsplit

from preshuffle.layouts.laid_out.files.errors import LaidOutError

AUTO: Final = "auto"
_SECONDS: Final = 10.0
"""For which a cluster's port is waited for; Ray itself would wait for minutes."""


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Use a Ray cluster; yield the module ``ray``.

    Where this process is connected already, that connection is used and kept.

    Args:
        address: ``auto`` for the cluster of this machine, ``HOST:PORT``, or ``ray://HOST:PORT``; None for the variable
            ``RAY_ADDRESS``, else ``auto``.

    Raises:
        LaidOutError: the cluster cannot be reached.
    """
    import ray

    with contextlib.redirect_stdout(cast(TextIO, OutputWithoutRay(sys.stdout))):
        if ray.is_initialized():
            yield ray
            return
        address = address or os.environ.get("RAY_ADDRESS") or AUTO
        check_reachable(address)
        # Ray exits on SIGTERM, so that what runs is cancelled; that ends with the connection
        terminate, in_main_thread = signal.getsignal(signal.SIGTERM), current_thread() is main_thread()
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (Exception, SystemExit) as error:
            reason = str(error).strip().partition("\n")[0]
            raise LaidOutError(f"no Ray cluster at {address}: {reason}") from None
        try:
            yield ray
        finally:
            ray.shutdown()
            if in_main_thread:
                signal.signal(signal.SIGTERM, terminate)


def check_installed() -> None:
    """Check that Ray can be imported.

    Raises:
        LaidOutError: it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise LaidOutError('Ray is not installed: pip install "preshuffle[ray]"')


class OutputWithoutRay:
    """Standard output, but for what Ray's threads print there.

    They tell what happens to nodes, and standard output is for results: the first line of that goes to standard error.
    """

    def __init__(self, output: TextIO) -> None:
        """Wrap an output."""
        self._output = output

    def write(self, text: str) -> int:
        """Write a text."""
        if not current_thread().name.startswith("ray"):
            return self._output.write(text)
        sys.stderr.write(text if text.isspace() else text.partition("\n")[0])
        return len(text)

    def __getattr__(self, name: str) -> Any:
        """Return what else the output has."""
        return getattr(self._output, name)


def check_reachable(address: str) -> None:
    """Check that something listens at an address.

    Raises:
        LaidOutError: nothing does, or it is no address.
    """
    if address in (AUTO, "local"):
        return
    try:
        found = urlsplit(address if "://" in address else f"//{address}")
        host, port = found.hostname, found.port or (10001 if found.scheme == "ray" else None)
    except ValueError:
        host, port = None, None
    if not host or not port or found.scheme not in ("", "ray"):
        raise LaidOutError(f"Ray address {address!r}; valid: auto, HOST:PORT, ray://HOST:PORT")
    if found.scheme == "ray" and importlib.util.find_spec("grpc") is None:
        raise LaidOutError(f'{address} needs grpcio: pip install "ray[client]"')
    try:
        socket.create_connection((host, port), timeout=_SECONDS).close()
    except OSError as error:
        raise LaidOutError(f"no Ray cluster at {address}: {error.strerror or error}") from None

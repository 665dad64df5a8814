"""Webhook: a bounded queue of state changes, sent with retries."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from preshuffle.api.errors import ServeError
from preshuffle.api.notify.bad_deployments import is_silenced
from preshuffle.api.notify.links import Links
from preshuffle.api.notify.payloads import FORMATS, Payload
from preshuffle.api.notify.severity import severity_of
from preshuffle.api.settings import Settings
from preshuffle.api.store import StateChange, Store

log = logging.getLogger("preshuffle.api.webhook")

QUEUE: Final = 2000
"""Changes that wait; the oldest are dropped beyond."""
BATCH: Final = 100
"""Changes in one request."""
ATTEMPTS: Final = 8
_TIMEOUT_S: Final = 5.0
"""Seconds of each step of a request."""
_REQUEST_S: Final = 20.0
"""Seconds of a request as a whole: a receiver may send a byte now and then."""
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
_STOP_S: Final = 2.0
"""Seconds that the end of the service leaves for changes that wait."""
_MAX_HEADERS: Final = 16 << 10
_HEADER: Final = re.compile(r"[A-Za-z0-9_-]+")
_REPEATED: Final = frozenset({408, 425, 429})
"""Statuses below 500 after which the same request may succeed."""


@dataclass(slots=True)
class WebhookCounts:
    """Counters of one webhook, in changes, but ``failures`` in requests."""

    sent: int = 0
    dropped: int = 0
    failures: int = 0


class _RefusedError(Exception):
    """Error for a request that is not repeated."""


class Webhook:
    """Sends state changes to one URL.

    Args:
        url: of the receiver; no redirect is followed.
        payload: makes the body.
        links: into the service.
        headers: returns headers with secrets, read anew for each request.
        is_silenced: whether an operator has silenced a deployment; its changes are not sent.
    """

    def __init__(
        self,
        url: str,
        payload: Payload,
        links: Links,
        headers: Callable[[], dict[str, str]] = dict,
        is_silenced: Callable[[str], bool] = lambda _name: False,
    ) -> None:
        """Prepare; ``start`` begins."""
        self._url = url
        self._host = urlsplit(url).hostname or ""  # the path may be a secret
        self._payload = payload
        self._links = links
        self._headers = headers
        self._is_silenced = is_silenced
        self._queue: deque[StateChange] = deque()
        self._wake = threading.Condition()
        self._in_flight = 0
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._client: httpx.Client | None = None
        self.counts = WebhookCounts()

    @property
    def waiting(self) -> int:
        """Number of changes that wait."""
        return len(self._queue)

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send what waits, for a short time, and end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=_STOP_S)
        lost = len(self._queue) + self._in_flight
        if lost:
            log.error("the service ends with %d state changes that %s has not got", lost, self._host)

    def take(self, changes: Sequence[StateChange]) -> None:
        """Queue changes that matter; return at once."""
        chosen = [change for change in changes if _matters(change)]
        with self._wake:
            self._queue.extend(chosen)
            lost = max(0, len(self._queue) - QUEUE)
            for _ in range(lost):
                self._queue.popleft()
            self.counts.dropped += lost
            self._wake.notify_all()
        if lost:
            log.error("%s does not keep up: %d state changes were dropped", self._host, lost)

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            self._in_flight = len(batch)
            try:
                self._deliver(batch)
            except Exception:
                self.counts.dropped += len(batch)
                log.exception("a webhook failed; it continues with the next changes")
            self._in_flight = 0
        if self._client is not None:
            self._client.close()

    def _next(self) -> list[StateChange] | None:
        """Wait for changes and take some; None at the end."""
        with self._wake:
            self._wake.wait_for(lambda: self._queue or self._stopping)
            if not self._queue:
                return None
            return [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]

    def _deliver(self, batch: list[StateChange]) -> None:
        unsilenced = [change for change in batch if not self._is_silenced(change.name)]
        if not unsilenced:
            return
        body = json.dumps(self._payload(unsilenced, self._links), ensure_ascii=False).encode()
        pause = _FIRST_PAUSE_S
        for attempt in range(1, ATTEMPTS + 1):
            try:
                wait = self._send(body)
            except _RefusedError as error:
                self.counts.failures += 1
                log.error("%s refuses %d state changes: %s", self._host, len(unsilenced), error)
                break
            if wait is None:
                self.counts.sent += len(unsilenced)
                return
            self.counts.failures += 1
            if attempt == ATTEMPTS or not self._pause(max(wait, pause)):
                log.error("%s did not take %d state changes in %d attempts", self._host, len(unsilenced), attempt)
                break
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        self.counts.dropped += len(unsilenced)

    def _open_client(self) -> httpx.Client:
        """Return the client, a new one after a request that took too long."""
        if self._client is None or self._client.is_closed:
            self._client = httpx.Client(timeout=_TIMEOUT_S, follow_redirects=False)
        return self._client

    def _send(self, body: bytes) -> float | None:
        """Send a body once; return None if it was taken, else the seconds to wait at least.

        Raises:
            _RefusedError: it will not be taken later either.
        """
        client = self._open_client()
        deadline = threading.Timer(_REQUEST_S, client.close)
        deadline.daemon = True
        deadline.start()
        try:
            headers = {"Content-Type": "application/json", **self._headers()}
            with client.stream("POST", self._url, content=body, headers=headers) as response:  # its body is not read
                status, after = response.status_code, response.headers.get("retry-after", "")
        except Exception as error:
            if not (client.is_closed or isinstance(error, httpx.HTTPError | ServeError | OSError)):
                raise
            why = f"no answer within {_REQUEST_S:.0f} s" if client.is_closed else str(error) or repr(error)
            log.warning("%s was not reached: %s", self._host, why.replace(self._url, self._host))
            return 0.0
        finally:
            deadline.cancel()
        if status < 300:
            return None
        if status < 500 and status not in _REPEATED:
            raise _RefusedError("redirects are not followed" if status < 400 else f"HTTP {status}")
        log.warning("%s answers HTTP %d", self._host, status)
        return min(float(after), _LONGEST_PAUSE_S) if after.isdecimal() else 0.0

    def _pause(self, seconds: float) -> bool:
        """Wait before the next attempt; return whether there is to be one."""
        deadline = time.monotonic() + seconds
        with self._wake:
            self._wake.wait_for(lambda: self._stopping, timeout=max(0.0, deadline - time.monotonic()))
            return not self._stopping


def read_headers(file: str | None) -> dict[str, str]:
    """Return the headers in a file, ``Name: value`` a line.

    Raises:
        ServeError: it cannot be read, or holds something else; no value is repeated.
    """
    if file is None:
        return {}
    try:
        with Path(file).open("rb") as opened:
            text = opened.read(_MAX_HEADERS).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ServeError(f"--webhook-header-file {file} cannot be read: {error}") from None
    headers = {}
    for number, line in enumerate(filter(str.strip, text.splitlines()), start=1):
        name, colon, value = line.partition(":")
        if not colon or not _HEADER.fullmatch(name.strip()) or not (value.isascii() and value.isprintable()):
            raise ServeError(f"--webhook-header-file {file}: line {number} is no header; valid: Name: value")
        headers[name.strip()] = value.strip()
    return headers


def webhook_of(settings: Settings, links: Links, store: Store) -> Webhook | None:
    """Return the webhook of the settings, if there is one.

    Raises:
        ServeError: the file of headers cannot be read or is not valid.
    """
    if settings.webhook_url is None:
        return None
    headers = partial(read_headers, settings.webhook_header_file)
    headers()
    return Webhook(settings.webhook_url, FORMATS[settings.webhook_format], links, headers, partial(is_silenced, store))


def _matters(change: StateChange) -> bool:
    """Whether a change begins or ends something that somebody has to know."""
    return severity_of(change.state_before) != "none" or severity_of(change.state_after) != "none"

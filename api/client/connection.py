"""HTTP connection to one service.

Files of a token and of TLS are read again when they change.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypedDict, Unpack

import httpx

from preshuffle.api.client.problems import UnavailableError, not_ours, raise_problem

_FileState = tuple[int, int, int]
"""Inode, size and time of change of a file, which tell whether it was replaced."""
_MAX_TOKEN: Final = 4096
_TIMEOUT_S: Final = 2.0


class ConnectionOptions(TypedDict, total=False):
    """Optional arguments of a connection.

    Attributes:
        token: bearer token, if the service requires one.
        token_file: file that holds the token instead; it is read for every request.
        ca_file: certificates that the service's is checked against, instead of the usual ones.
        cert_file: certificate that this client shows.
        key_file: its key, where that is in a file of its own.
        timeout: seconds for each step of a request; 2 by default.
        transport: of httpx, for special connections (a proxy, a socket).
    """

    token: str | None
    token_file: str | None
    ca_file: str | None
    cert_file: str | None
    key_file: str | None
    timeout: float
    transport: httpx.BaseTransport | None


class ServiceConnection:
    """Thread-safe connection to one service.

    Args:
        url: of the service.
        options: see `ConnectionOptions`.

    Raises:
        TypeError: there is no such option.
    """

    def __init__(self, url: str, **options: Unpack[ConnectionOptions]) -> None:
        """Prepare; the first request connects."""
        if unknown := options.keys() - ConnectionOptions.__annotations__.keys():
            raise TypeError(f"a connection has no option {', '.join(sorted(unknown))}")
        self.url = url.rstrip("/")
        self.timeout = options.get("timeout", _TIMEOUT_S)
        self._options = options
        self._lock = Lock()
        self._http: httpx.Client | None = None
        self._replaced: httpx.Client | None = None
        self._files: tuple[_FileState, ...] = ()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            for client in (self._http, self._replaced):
                if client is not None:
                    client.close()
            self._http = self._replaced = None

    def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send one request; ``request`` has the arguments of ``httpx.Client.request``.

        Raises:
            PreshuffleError: the service refuses it.
            UnavailableError: no response, or none of preshuffle's.
        """
        headers = {**request.pop("headers", {}), **self._authorization()}
        try:
            response = self._client().request(method, self.url + path, headers=headers, **request)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise UnavailableError(f"{self.url} does not answer: {error or type(error).__name__}") from None
        request_line = f"{method} {self.url}{path}"
        if response.status_code >= 400:
            raise_problem(response, request_line)
        if response.has_redirect_location:
            raise UnavailableError(not_ours(response, request_line), response.status_code)
        return response

    def _authorization(self) -> dict[str, str]:
        token, token_file = self._options.get("token"), self._options.get("token_file")
        if token_file is not None:
            try:
                with Path(token_file).open(encoding="ascii") as file:
                    token = file.read(_MAX_TOKEN).strip()
            except (OSError, UnicodeDecodeError) as error:
                raise UnavailableError(f"the token in {token_file} cannot be read: {error}") from None
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _client(self) -> httpx.Client:
        """Return the HTTP client, a new one after a TLS file changed.

        Raises:
            OSError: a TLS file cannot be read, or holds no certificate.
        """
        options = self._options
        paths = (options.get("ca_file"), options.get("cert_file"), options.get("key_file"))
        files = tuple(_file_state(path) for path in paths if path)
        with self._lock:
            if self._http is None or files != self._files:
                if self._replaced is not None:
                    self._replaced.close()
                self._replaced = self._http  # another thread may be using it
                transport = options.get("transport")
                self._http = httpx.Client(timeout=self.timeout, transport=transport, verify=self._context())
                self._files = files
            return self._http

    def _context(self) -> ssl.SSLContext:
        if not self.url.startswith("https:"):
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used; httpx would load every certificate for it
        ca_file, cert_file = self._options.get("ca_file"), self._options.get("cert_file")
        context = httpx.create_ssl_context() if ca_file is None else ssl.create_default_context(cafile=ca_file)
        if cert_file is not None:
            context.load_cert_chain(cert_file, self._options.get("key_file"))
        return context


def _file_state(path: str) -> _FileState:
    status = Path(path).stat()
    return status.st_ino, status.st_size, status.st_mtime_ns

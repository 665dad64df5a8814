"""Connection over TLS: certificates of the service and of the client, and files that are replaced."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from preshuffle.api.client.connection import ServiceConnection
from preshuffle.api.client.problems import UnavailableError

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")


def certificate(folder: Path, name: str) -> tuple[str, str]:
    """Make a certificate that signs itself, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    made = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", cert)
    named = ("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1")
    subprocess.run(["openssl", "req", "-x509", *made, *named], check=True, capture_output=True)
    return str(cert), str(key)


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    for name in ("service", "engine", "stranger"):
        certificate(made, name)
    return made


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    """A service that asks its clients for the engine's certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "engine.pem")
    context.load_cert_chain(folder / "service.pem", folder / "service.key")
    context.verify_mode = ssl.CERT_REQUIRED
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_certificates_are_checked_and_read_again_when_they_change(url: str, folder: Path, tmp_path: Path) -> None:
    trusted, cert, key = (tmp_path / name for name in ("ca", "cert", "key"))
    for target, source in ((trusted, "stranger.pem"), (cert, "stranger.pem"), (key, "stranger.key")):
        shutil.copy(folder / source, target)
    connection = ServiceConnection(url, ca_file=str(trusted), cert_file=str(cert), key_file=str(key), timeout=60)
    with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        connection.send("GET", "/")
    shutil.copy(folder / "service.pem", trusted)
    with pytest.raises(UnavailableError):  # the service does not know the stranger
        connection.send("GET", "/")
    shutil.copy(folder / "engine.pem", cert)
    with pytest.raises(UnavailableError, match="KEY_VALUES_MISMATCH"):  # half of a rotation
        connection.send("GET", "/")
    shutil.copy(folder / "engine.key", key)
    assert connection.send("GET", "/").status_code == 200
    trusted.unlink()
    with pytest.raises(UnavailableError, match="No such file"):
        connection.send("GET", "/")
    connection.close()

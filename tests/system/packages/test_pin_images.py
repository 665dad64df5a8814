"""make pin-images against a registry that speaks the OCI distribution API, and against none."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.processes.machine import free_port

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "deploy" / "packages" / "pin_images.py"
MANIFEST = b'{"schemaVersion": 2}'
DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()


@dataclass
class Registry:
    """A registry with one image, ``team/python:3.12``, and how it behaves."""

    host: str
    wants_token: bool = False
    states: str | None = DIGEST
    requests: list[str] = field(default_factory=list)


@contextmanager
def registry(wants_token: bool = False, states: str | None = DIGEST) -> Iterator[Registry]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
            known.requests.append(f"{self.command} {self.path} {self.headers.get('Authorization', '')}".strip())
            self.send_response(status)
            for name, text in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, text)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            if self.path.startswith("/token"):
                return self.answer(200, {}, b'{"token": "anonymous"}')
            if known.wants_token and self.headers.get("Authorization") != "Bearer anonymous":
                realm = f'Bearer realm="http://{known.host}/token",service="here",scope="repository:team/python:pull"'
                return self.answer(401, {"WWW-Authenticate": realm})
            accepted = "application/vnd.oci.image.index.v1+json" in self.headers.get("Accept", "")
            if self.path != "/v2/team/python/manifests/3.12" or not accepted:
                return self.answer(404, {})
            return self.answer(200, {"Docker-Content-Digest": known.states} if known.states else {}, MANIFEST)

        do_GET = do_HEAD

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    known = Registry(f"127.0.0.1:{server.server_port}", wants_token, states)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield known
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def pin(file: Path, *images: str) -> subprocess.CompletedProcess[str]:
    lines = [
        f"ARG IMAGE_{number}={image}\nFROM ${{IMAGE_{number}}} AS s{number}" for number, image in enumerate(images)
    ]
    file.write_text("ARG OTHER=python:3.12\n" + "\n".join(lines) + "\n")
    return subprocess.run([sys.executable, SCRIPT, file], capture_output=True, text=True, check=False)


def bases(file: Path) -> list[str]:
    return [line.partition("=")[2] for line in file.read_text().splitlines() if line.startswith("ARG IMAGE_")]


@pytest.mark.parametrize("wants_token", [False, True])
def test_the_digest_is_written_behind_the_tag(wants_token: bool, tmp_path: Path) -> None:
    with registry(wants_token) as here:
        image = f"{here.host}/team/python:3.12"
        done = pin(tmp_path / "Dockerfile", image, "scratch")
    assert (done.returncode, done.stderr) == (0, "")
    assert bases(tmp_path / "Dockerfile") == [f"{image}@{DIGEST}", "scratch"]
    assert "ARG OTHER=python:3.12\n" in (tmp_path / "Dockerfile").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["Dockerfile"]
    if wants_token:
        assert any("/token?service=here&scope=repository%3Ateam%2Fpython%3Apull" in line for line in here.requests)


def test_a_pinned_image_gets_the_digest_that_its_tag_has_now(tmp_path: Path) -> None:
    with registry() as here:
        image = f"{here.host}/team/python:3.12"
        assert pin(tmp_path / "Dockerfile", f"{image}@sha256:{'0' * 64}", image).returncode == 0
    assert bases(tmp_path / "Dockerfile") == [f"{image}@{DIGEST}"] * 2
    assert len(here.requests) == 1


def test_a_digest_that_is_not_stated_is_that_of_the_manifest(tmp_path: Path) -> None:
    with registry(states=None) as here:
        image = f"{here.host}/team/python:3.12"
        assert pin(tmp_path / "Dockerfile", image).returncode == 0
    assert bases(tmp_path / "Dockerfile") == [f"{image}@{DIGEST}"]


@pytest.mark.parametrize("states", ["sha256:12", "md5:" + "0" * 32, f"{DIGEST} AS x"])
def test_a_digest_that_is_none_is_refused(states: str, tmp_path: Path) -> None:
    with registry(states=states) as here:
        image = f"{here.host}/team/python:3.12"
        done = pin(tmp_path / "Dockerfile", image)
    assert done.returncode == 1
    assert "no SHA-256 digest" in done.stderr
    assert bases(tmp_path / "Dockerfile") == [image]


@pytest.mark.parametrize("second", ["{host}/team/python:nosuch", "127.0.0.1:{free}/team/python:3.12"])
def test_where_one_cannot_be_had_nothing_is_written(second: str, tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    with registry() as here:
        images = (f"{here.host}/team/python:3.12", second.format(host=here.host, free=free_port()))
        done = pin(file, *images)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.endswith("; Dockerfile is unchanged\n")
    assert bases(file) == list(images)
    assert [path.name for path in tmp_path.iterdir()] == ["Dockerfile"]

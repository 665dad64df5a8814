"""Stand-in for the Hugging Face Hub: one model's endpoints over HTTP, as huggingface_hub asks for them.

The tree comes in pages with Git and LFS hashes; files resolve with ETags, LFS objects by a redirect to a storage that
serves ranges.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

REPOSITORY = "acme/small-moe"
TOKEN = "hf_standin"
_PAGE = 3
_REVISIONS = ("main", "v1", "0" * 40)


@dataclass
class Hub:
    """What the stand-in holds, and what it was asked.

    Attributes:
        url: of the endpoint.
        files: by name.
        requests: methods and paths, in order.
        needs_token: whether the model is private.
        spoilt: name of a file of which other bytes come than the hashes say.
    """

    files: dict[str, bytes]
    url: str = ""
    requests: list[str] = field(default_factory=list)
    needs_token: bool = False
    spoilt: str | None = None

    def entry(self, name: str) -> dict[str, Any]:
        """Return a file as the tree lists it."""
        data = self.files[name]
        if not name.endswith(".safetensors"):
            return {"type": "file", "path": name, "size": len(data), "oid": git_blob(data)}
        sha = hashlib.sha256(data).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize {len(data)}\n".encode()
        lfs = {"oid": sha, "size": len(data), "pointerSize": len(pointer)}
        return {"type": "file", "path": name, "size": len(data), "oid": git_blob(pointer), "lfs": lfs}

    def shards_asked_for(self) -> list[str]:
        """Return the shards that were resolved, each once."""
        paths = (request.partition("/resolve/")[2].rpartition("/")[2] for request in self.requests)
        return sorted({path for path in paths if path.endswith(".safetensors")})


def git_blob(data: bytes) -> str:
    """Return the SHA-1 by which Git names bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serving_hub(folder: Path) -> Iterator[Hub]:
    """Serve a folder's files as a model."""
    hub = Hub({path.name: path.read_bytes() for path in folder.iterdir()})
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        address = urlsplit(self.path)
        path = unquote(address.path)
        self.hub.requests.append(f"{self.command} {path}")
        if path.startswith("/lfs/"):
            name = path.removeprefix("/lfs/")
            self._bytes(name, {"ETag": f'"{hashlib.md5(self.hub.files[name]).hexdigest()}"'})
        elif self.hub.needs_token and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._error(401, "GatedRepo", "Access to this model is restricted. You must have access to it.")
        elif path.startswith(f"/api/models/{REPOSITORY}"):
            self._api(path.removeprefix(f"/api/models/{REPOSITORY}").strip("/"), parse_qs(address.query), body)
        elif path.startswith(f"/{REPOSITORY}/resolve/"):
            self._resolve(path.removeprefix(f"/{REPOSITORY}/resolve/"))
        else:
            self._error(404, "RepoNotFound", "Repository not found")

    def _api(self, path: str, query: dict[str, list[str]], body: str) -> None:
        kind, _, rest = path.partition("/")
        revision = rest.partition("/")[0] or "main"
        if revision not in _REVISIONS:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif kind == "tree":
            self._tree(path, int(query.get("cursor", ["0"])[0]))
        elif kind == "paths-info":
            wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
            self._json([self.hub.entry(name) for name in wanted if name in self.hub.files])
        else:
            siblings = [{"rfilename": name} for name in self.hub.files]
            self._json({"id": REPOSITORY, "sha": _REVISIONS[-1], "private": False, "siblings": siblings, "tags": []})

    def _tree(self, path: str, first: int) -> None:
        names = sorted(self.hub.files)
        headers = {}
        if first + _PAGE < len(names):
            following = f"{self.hub.url}/api/models/{REPOSITORY}/{path}?cursor={first + _PAGE}"
            headers["Link"] = f'<{following}>; rel="next"'
        self._json([self.hub.entry(name) for name in names[first : first + _PAGE]], headers)

    def _resolve(self, path: str) -> None:
        revision, _, name = path.partition("/")
        if revision not in _REVISIONS or name not in self.hub.files:
            self._error(404, "EntryNotFound", "Entry not found")
            return
        entry, common = self.hub.entry(name), {"X-Repo-Commit": _REVISIONS[-1], "Accept-Ranges": "bytes"}
        if "lfs" not in entry:
            self._bytes(name, {**common, "ETag": f'"{entry["oid"]}"'})
            return
        linked = {"X-Linked-Size": str(entry["size"]), "X-Linked-ETag": f'"{entry["lfs"]["oid"]}"'}
        self._send(302, b"", {**common, **linked, "Location": f"{self.hub.url}/lfs/{name}"})

    def _bytes(self, name: str, headers: dict[str, str]) -> None:
        data = self.hub.files[name]
        if name == self.hub.spoilt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        asked = self.headers.get("Range")
        if asked is None:
            self._send(200, data, headers)
            return
        begin, _, last = asked.removeprefix("bytes=").partition("-")
        end = min(int(last) + 1 if last else len(data), len(data))
        content = f"bytes {begin}-{end - 1}/{len(data)}"
        self._send(206, data[int(begin) : end], {**headers, "Content-Range": content})

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _error(self, status: int, code: str, message: str) -> None:
        self._send(status, message.encode(), {"X-Error-Code": code, "X-Error-Message": message})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

"""Writes the digests of the Dockerfile's base images, as their registries state them.

Speaks the OCI distribution API: HEAD of a tag's manifest, with an anonymous token where the registry asks for one.
Registries on loopback are spoken to without TLS. Either every image is pinned or the file is left as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"
_TIMEOUT_S = 20
_ACCEPTED = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1",
        "docker.distribution.manifest.list.v2",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.v2",
    )
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ARGUMENT = re.compile(r"(?m)^ARG (?P<name>\w+)=(?P<image>\S+)$")
_FROM = re.compile(r"(?m)^FROM \$\{(?P<name>\w+)\}")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_NO_IMAGE = "scratch"


class RegistryError(Exception):
    """A registry that cannot be reached, or whose answer cannot be used."""


@dataclass(frozen=True, slots=True)
class Image:
    """Reference of an image, as Docker reads it: registry, repository and tag."""

    name: str
    registry: str
    repository: str
    tag: str

    @staticmethod
    def parse(reference: str) -> Image:
        """Read ``[registry/]repository[:tag][@digest]``; a digest is dropped."""
        name = reference.partition("@")[0]
        first, slash, rest = name.partition("/")
        has_registry = bool(slash) and (first == "localhost" or "." in first or ":" in first)
        registry, path = (first, rest) if has_registry else ("registry-1.docker.io", name)
        if registry == "docker.io":
            registry = "registry-1.docker.io"
        repository, _, tag = path.partition(":")
        if registry == "registry-1.docker.io" and "/" not in repository:
            repository = f"library/{repository}"
        return Image(name, registry, repository, tag or "latest")

    @property
    def url(self) -> str:
        """The URL of the tag's manifest."""
        host = urllib.parse.urlsplit(f"//{self.registry}").hostname or ""
        scheme = "http" if host in ("localhost", "::1") or host.startswith("127.") else "https"
        return f"{scheme}://{self.registry}/v2/{self.repository}/manifests/{self.tag}"


def digest_of(image: Image) -> str:
    """Return the digest that the registry states for a tag.

    Raises:
        RegistryError: it cannot be reached, does not know the tag, or states no usable digest.
    """
    headers = {"Accept": _ACCEPTED}
    try:
        status, answered, _ = _send("HEAD", image.url, headers)
        if status == 401:
            headers["Authorization"] = f"Bearer {_token(answered.get('www-authenticate', ''))}"
            status, answered, _ = _send("HEAD", image.url, headers)
        if status != 200:
            raise RegistryError(f"{image.registry} answers {status} for {image.name}")
        stated = answered.get("docker-content-digest")
        if stated is None:  # the header is optional in the API: the digest is that of the manifest's bytes
            status, _, body = _send("GET", image.url, headers)
            if status != 200:
                raise RegistryError(f"{image.registry} answers {status} for {image.name}")
            stated = f"sha256:{hashlib.sha256(body).hexdigest()}"
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise RegistryError(f"{image.registry} cannot be reached: {reason}") from error
    if not _DIGEST.fullmatch(stated):
        raise RegistryError(f"{image.registry} states no SHA-256 digest for {image.name}: {stated!r}")
    return stated


def _send(method: str, url: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
    """Return an answer's status, its headers by lower-case name, and its body."""
    request = urllib.request.Request(url, headers=dict(headers), method=method)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            return answer.status, {name.lower(): text for name, text in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {name.lower(): text for name, text in error.headers.items()}, b""


def _token(challenge: str) -> str:
    """Fetch the anonymous token that a ``WWW-Authenticate: Bearer`` header asks for."""
    scheme, _, rest = challenge.partition(" ")
    fields = dict(_CHALLENGE.findall(rest))
    if scheme.lower() != "bearer" or "realm" not in fields:
        raise RegistryError(f"the registry asks for a login that is not supported: {challenge!r}")
    query = urllib.parse.urlencode({key: fields[key] for key in ("service", "scope") if key in fields})
    status, _, body = _send("GET", f"{fields['realm']}?{query}", {})
    if status != 200:
        raise RegistryError(f"{fields['realm']} answers {status} to an anonymous request for a token")
    answer = json.loads(body)
    token = answer.get("token") or answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(token, str):
        raise RegistryError(f"{fields['realm']} gives no token")
    return token


def pinned(text: str) -> tuple[str, dict[str, str]]:
    """Return a Dockerfile with the digest behind every base image, and the digests by image.

    Raises:
        RegistryError: a digest cannot be had; nothing is pinned then.
    """
    used = {found["name"] for found in _FROM.finditer(text)}
    digests: dict[str, str] = {}

    def pin(found: re.Match[str]) -> str:
        if found["name"] not in used or found["image"] == _NO_IMAGE:
            return found[0]
        image = Image.parse(found["image"])
        digests[image.name] = digests.get(image.name) or digest_of(image)
        return f"ARG {found['name']}={image.name}@{digests[image.name]}"

    return _ARGUMENT.sub(pin, text), digests


def main(arguments: Sequence[str]) -> int:
    """Pin the images of the Dockerfile that is named, by default the project's."""
    file = Path(arguments[0]) if arguments else DOCKERFILE
    try:
        text, digests = pinned(file.read_text(encoding="utf-8"))
    except RegistryError as error:
        print(f"pin-images: {error}; {file.name} is unchanged", file=sys.stderr)
        return 1
    written = file.with_name(f".{file.name}.new")
    written.write_text(text, encoding="utf-8")
    os.replace(written, file)
    for image, digest in digests.items():
        print(f"{image} {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

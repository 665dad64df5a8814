"""Folder of another file system, listed and read through fsspec."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from preshuffle.layouts.checkpoint.part import CheckpointError
from preshuffle.registry.base.address_packages import ADDRESS_PACKAGES

Identity = Mapping[str, str]
"""What a file system says of a file's bytes without reading them, by kind."""


def _sha256(entry: Mapping[str, Any]) -> str | None:
    lfs = entry.get("lfs")
    return lfs.get("sha256") if isinstance(lfs, Mapping) else getattr(lfs, "sha256", None)


def _git(entry: Mapping[str, Any]) -> str | None:
    return None if entry.get("lfs") else entry.get("blob_id")


def _from_base64(name: str) -> Callable[[Mapping[str, Any]], str | None]:
    def read(entry: Mapping[str, Any]) -> str | None:
        try:
            return base64.b64decode(entry[name], validate=True).hex()
        except (KeyError, TypeError, ValueError, binascii.Error):
            return None

    return read


def _etag(entry: Mapping[str, Any]) -> str | None:
    tag = entry.get("ETag") or entry.get("etag")
    return tag.strip('"') if isinstance(tag, str) else None


KINDS: Final[dict[str, Callable[[Mapping[str, Any]], str | None]]] = {
    "sha256": _sha256,
    "git": _git,
    "md5": _from_base64("md5Hash"),
    "crc32c": _from_base64("crc32c"),
    "etag": _etag,
}
"""Kinds of identity, the strongest first, and how an entry of fsspec's listings states them.

``sha256``: the Hub's LFS object; ``git``: its Git blob (SHA-1); ``md5`` and ``crc32c``: Google's; ``etag``: S3's and
others'.
"""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """File of a remote folder.

    Attributes:
        name: in the folder.
        path: as its file system takes it.
        size: in bytes.
        identity: what is known of its bytes.
    """

    name: str
    path: str
    size: int
    identity: Identity = field(default_factory=dict)


@dataclass(frozen=True)
class RemoteFolder:
    """Folder of another file system.

    Attributes:
        address: without passwords, for messages.
        files: by name; those in folders below are left out.
    """

    address: str
    files: Mapping[str, RemoteFile]
    _system: Any = field(repr=False)

    @staticmethod
    def open(address: str) -> RemoteFolder:
        """List a folder anew, whatever was cached.

        Args:
            address: as fsspec takes it: ``s3://bucket/model``, ``hf://org/model@revision``, …

        Raises:
            CheckpointError: a package is missing, access is denied, or there is no such folder.
        """
        shown = without_password(address)
        system, root = _opened(address, shown)
        with remote_errors(shown):
            system.invalidate_cache()
            entries = [entry for entry in system.ls(root, detail=True) if entry["type"] == "file"]
            found = [_file_of(entry) for entry in entries]
        return RemoteFolder(shown, {one.name: one for one in sorted(found, key=lambda one: one.name)}, system)

    def read(self, file: RemoteFile, begin: int, end: int) -> bytes:
        """Read a range of a file's bytes.

        Raises:
            CheckpointError: fewer or more bytes came, or the file cannot be read.
        """
        with remote_errors(file.path):
            block: bytes = self._system.cat_file(file.path, start=begin, end=end)
        if len(block) != end - begin:
            raise CheckpointError(f"{file.path}: came short: {len(block)} of {end - begin} bytes at byte {begin}")
        return block


def is_remote(source: str | os.PathLike[str]) -> bool:
    """Return whether a source is an address of another file system."""
    return isinstance(source, str) and "://" in source


def same_identity(one: Identity, other: Identity) -> bool | None:
    """Compare two identities by the strongest kind that both have.

    Returns:
        Whether they are equal; None where they have no kind in common.

    Example:
        >>> same_identity({"etag": "a", "sha256": "b"}, {"sha256": "b", "etag": "c"})
        True
    """
    for kind in KINDS:
        if kind in one and kind in other:
            return one[kind] == other[kind]
    return None


def identity_of_link(path: Path) -> Identity:
    """Return the hash by which the Hub's cache names a file's blob."""
    try:
        target = Path(os.readlink(path))
    except OSError:
        return {}
    if target.parent.name != "blobs":
        return {}
    if re.fullmatch(r"[0-9a-f]{64}", target.name):
        return {"sha256": target.name}
    return {"git": target.name} if re.fullmatch(r"[0-9a-f]{40}", target.name) else {}


def without_password(address: str) -> str:
    """Return an address without user, password and query.

    Example:
        >>> without_password("http://me:secret@host/model?token=x")
        'http://host/model'
    """
    scheme, separator, rest = address.partition("://")
    host, slash, path = rest.partition("?")[0].partition("/")
    user, at, name = host.rpartition("@")
    kept = host if not at or ":" not in user else name  # hf://model@revision has an @, too
    return f"{scheme}{separator}{kept}{slash}{path}"


@contextmanager
def remote_errors(what: str) -> Iterator[None]:
    """Turn a driver's errors into one line that names what was read.

    Raises:
        CheckpointError: for whatever the driver raised; each has errors of its own, which have no base in common.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{what}: cannot be read: {_reason(error)}") from None


def _opened(address: str, shown: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise CheckpointError(f'{shown}: needs fsspec: pip install "preshuffle[remote]"') from None
    scheme = address.partition("://")[0]
    with remote_errors(shown):
        try:
            found: tuple[Any, str] = url_to_fs(address)
        except ImportError as error:
            package = ADDRESS_PACKAGES.get(scheme)
            advice = f"needs {package}: pip install {package}" if package else "cannot be read"
            raise CheckpointError(f"{shown}: {advice} ({_first_line(error)})") from None
    return found


def _file_of(entry: Mapping[str, Any]) -> RemoteFile:
    identity = {kind: value for kind, read in KINDS.items() if isinstance(value := read(entry), str) and value}
    path = str(entry["name"])
    return RemoteFile(PurePosixPath(path).name, path, int(entry["size"]), identity)


def _reason(error: Exception) -> str:
    kinds = {"PermissionError": "access denied", "FileNotFoundError": "it is not there"}
    kind = next((kinds[base.__name__] for base in type(error).__mro__ if base.__name__ in kinds), None)
    if kind is None and "timeout" in type(error).__name__.lower():
        kind = "timed out"
    text = _first_line(error)
    return f"{kind} ({text})" if kind and text != kind else kind or text


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{lines[0]:.300}" if lines else type(error).__name__

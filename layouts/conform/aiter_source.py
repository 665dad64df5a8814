"""AITER's sources: installed, a checkout, or a wheel file."""

from __future__ import annotations

import hashlib
import re
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from preshuffle.layouts.conform.errors import ConformError
from preshuffle.registry.base.versions import InvalidVersionError, local_commit, version_key
from preshuffle.registry.kernels import TableError, installed_package
from preshuffle.registry.values.conformance import AiterBuild

MAX_ENTRIES: Final = 200_000
MAX_BYTES: Final = 8 << 30
MAX_SOURCE_BYTES: Final = 1 << 29
MAX_FILES: Final = 50_000
_NEEDED: Final = re.compile(
    r"aiter/.*\.(py|csv)|aiter_meta/(csrc/.*\.(py|h)|hsa/.*\.(co|csv))|[^/]+\.dist-info/METADATA"
)
_VERSION_LINE: Final = re.compile(r"^Version:\s*(\S{1,128})\s*$", re.MULTILINE)
_VERSION_FILE: Final = re.compile(r"""^__version__\s*=.*?["']([^"']{1,128})["']""", re.MULTILINE)
_COMMIT: Final = re.compile(r"[0-9a-f]{40,64}")
_ENTRY: Final = "fused_moe.py"


@dataclass(frozen=True, slots=True)
class AiterSource:
    """Sources of one AITER.

    Attributes:
        root: holds ``aiter`` and, of a checkout, ``csrc`` and ``hsa``, of a wheel ``aiter_meta``.
        package: the folder of the package ``aiter``.
        version: as its metadata says; None for a checkout.
        commit: of a checkout, or of a development build.
        digest: of its Python sources and tables.
        place: how it was given.
    """

    root: Path
    package: Path
    version: str | None
    commit: str | None
    digest: str
    place: Literal["installed", "folder", "wheel"]

    def build(self, supposed: str | None = None) -> AiterBuild:
        """Return what a report says of it.

        Args:
            supposed: the version that it was compared as, where its own is not known.
        """
        short = self.commit[:12] if self.commit else None
        if self.version:
            has_commit = short is None or local_commit(self.version) is not None
            id = self.version if has_commit else f"{self.version}{'.' if '+' in self.version else '+'}g{short}"
        else:
            id = f"g{short}" if short else f"src-{self.digest.removeprefix('sha256:')[:16]}"
        return AiterBuild(
            id=id,
            version=self.version,
            supposed=None if self.version else supposed,
            commit=self.commit,
            digest=self.digest,
            place=self.place,
        )

    def relative(self, path: str | Path) -> str:
        """Return a path of the sources relative to their root."""
        try:
            return Path(path).relative_to(self.root).as_posix()
        except ValueError:
            return Path(path).name


@contextmanager
def open_aiter(place: str = "installed") -> Iterator[AiterSource]:
    """Find an AITER; unpack a wheel into a temporary folder.

    Args:
        place: ``installed``, a folder that holds ``aiter/``, or a ``.whl`` file.

    Raises:
        ConformError: there is none, or it cannot be one.
    """
    if place == "installed":
        try:
            package, version = installed_package()
        except TableError as error:
            raise ConformError(f"{error}; give --aiter DIR or --aiter WHEEL") from None
        yield _source(package.parent, version, "installed")
    elif Path(place).is_dir():
        yield _source(Path(place).resolve(), None, "folder")
    elif Path(place).is_file():
        with tempfile.TemporaryDirectory(prefix="preshuffle-wheel-") as folder:
            unpack_wheel(Path(place), Path(folder))
            yield _source(Path(folder), None, "wheel")
    else:
        raise ConformError(f"{place}: no such folder or wheel; valid: installed, a folder with aiter/, a .whl file")


def unpack_wheel(wheel: Path, folder: Path, needed: re.Pattern[str] = _NEEDED) -> None:
    """Unpack the files of a wheel that are needed.

    Args:
        wheel: the file.
        folder: where to.
        needed: paths within the wheel; sources, tables and code objects of AITER by default.

    Raises:
        ConformError: it is no zip file, too large, or names a path outside itself.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_ENTRIES:
                raise ConformError(
                    f"{wheel.name} has {len(entries)} entries; a wheel that is read here has at most {MAX_ENTRIES}"
                )
            total = 0
            for entry in entries:
                _check_path(wheel.name, entry)
                if needed.fullmatch(entry.filename):
                    total += _extract(archive, entry, folder, MAX_BYTES - total, wheel.name)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ConformError(f"{wheel.name} is not a readable wheel: {error}") from None


def _check_path(wheel: str, entry: zipfile.ZipInfo) -> None:
    path = PurePosixPath(entry.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or "\0" in entry.filename:
        raise ConformError(f"{wheel} names a path outside itself: {entry.filename[:120]!r}")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise ConformError(f"{wheel} holds a link: {entry.filename[:120]!r}")


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, left: int, wheel: str) -> int:
    """Copy one entry, counting what really comes out of it."""
    target = folder / entry.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with archive.open(entry) as source, target.open("wb") as file:
        while block := source.read(1 << 20):
            size += len(block)
            if size > left:
                raise ConformError(f"{wheel} unpacks to more than {MAX_BYTES >> 30} GiB")
            file.write(block)
    return size


def _source(root: Path, version: str | None, place: Literal["installed", "folder", "wheel"]) -> AiterSource:
    package = root / "aiter"
    if not (package / _ENTRY).is_file():
        raise ConformError(f"{root if place != 'wheel' else 'the wheel'} holds no aiter/{_ENTRY}: is it AMD's AITER?")
    version = _readable(version or version_beside(root, "amd_aiter", "aiter"))
    commit = _commit_of(root) if place == "folder" else None
    if commit is None and version is not None:
        commit = local_commit(version)
    return AiterSource(root, package, version, commit, _digest(package), place)


def version_beside(root: Path, distribution: str, package: str) -> str | None:
    """Return the version that a package's metadata, else ``_version.py``, states."""
    for metadata in sorted(root.glob(f"{distribution}-*.dist-info/METADATA")):
        found = _VERSION_LINE.search(metadata.read_text(encoding="utf-8", errors="replace")[:65536])
        if found:
            return found[1]
    written = root / package / "_version.py"
    if written.is_file():
        found = _VERSION_FILE.search(written.read_text(encoding="utf-8", errors="replace")[:65536])
        return found[1] if found else None
    return None


def _readable(version: str | None) -> str | None:
    try:
        return version if version is None or version_key(version) else None
    except InvalidVersionError:
        return None


def _commit_of(root: Path) -> str | None:
    """Read a checkout's commit without running git."""
    git = root / ".git"
    try:
        if git.is_file():
            git = (root / git.read_text(encoding="utf-8")[:4096].removeprefix("gitdir:").strip()).resolve()
        head = (git / "HEAD").read_text(encoding="utf-8")[:4096].strip()
        if not head.startswith("ref:"):
            return head if _COMMIT.fullmatch(head) else None
        name = head.removeprefix("ref:").strip()
        common = git / "commondir"
        shared = (git / common.read_text(encoding="utf-8").strip()).resolve() if common.is_file() else git
        for folder in (git, shared):
            if (folder / name).is_file():
                text = (folder / name).read_text(encoding="utf-8")[:128].strip()
                return text if _COMMIT.fullmatch(text) else None
        packed = (shared / "packed-refs").read_text(encoding="utf-8")[: 1 << 24]
    except (OSError, UnicodeDecodeError, ValueError):
        return None
    found = re.search(rf"^([0-9a-f]{{40,64}}) {re.escape(name)}$", packed, re.MULTILINE)
    return found[1] if found else None


def _digest(package: Path) -> str:
    """Return the digest of all Python sources and tables, by relative path."""
    digest, total, count = hashlib.sha256(), 0, 0
    for path in sorted([*package.rglob("*.py"), *package.glob("configs/**/*.csv")]):
        if not path.is_file():
            continue
        count, total = count + 1, total + path.stat().st_size
        if count > MAX_FILES or total > MAX_SOURCE_BYTES:
            raise ConformError(f"{package} holds more sources than any AITER: {count} files, {total} bytes")
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(package).as_posix()}\0{content}\n".encode("utf-8", "surrogateescape"))
    return f"sha256:{digest.hexdigest()}"

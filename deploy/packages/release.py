"""Build wheel and sdist of a commit reproducibly: the same commit gives the same bytes.

``python deploy/packages/release.py OUT`` builds twice, each time from ``git archive`` of HEAD in a folder of its own,
compares both, and writes the files and ``SHA256SUMS`` to OUT. Links and images of the README point at the version's
tag, since an index shows it without the repository. Needs git and the distribution ``build``.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
FRAGMENTS: Final = "changelog.d/+"
_LINK: Final = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<path>(?![a-z]+:|#)[^)\s]+)\)")


class ReleaseError(Exception):
    """The tree is no release; the message says what to do."""


def main() -> int:
    """Check the tree, build, and print the checksums."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder for the files")
    parser.add_argument("--unreleased", action="store_true", help="build though changes wait in changelog.d")
    options = parser.parse_args()
    try:
        print(release(ROOT, options.out, unreleased=options.unreleased), end="")
    except ReleaseError as error:
        print(f"no release: {error}", file=sys.stderr)
        return 1
    return 0


def release(root: Path, out: Path, *, unreleased: bool = False) -> str:
    """Build the files of HEAD into a folder and return their checksums.

    Raises:
        ReleaseError: the tree is not as committed, its version has no entry in the changelog, changes wait for one, the
            builds differ, or a build fails.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    check_tree(root, project["version"], unreleased)
    first, second = build(root, project), build(root, project)
    if first != second:
        unequal = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
        raise ReleaseError(f"two builds of one commit differ in {', '.join(unequal)}")
    out.mkdir(parents=True, exist_ok=True)
    for name, data in first.items():
        (out / name).write_bytes(data)
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(first.items()))
    (out / "SHA256SUMS").write_text(sums, encoding="utf-8")
    return sums


def check_tree(root: Path, version: str, unreleased: bool) -> None:
    """Refuse a tree that is not as committed or whose version has no changelog."""
    changed = _git(root, "status", "--porcelain").decode().splitlines()
    if changed:
        raise ReleaseError(f"not committed: {', '.join(line[3:] for line in changed[:5])}")
    waiting = [line for line in _git(root, "ls-files").decode().splitlines() if line.startswith(FRAGMENTS)]
    if waiting and not unreleased:
        raise ReleaseError(f"{len(waiting)} changes wait in changelog.d: set the version, make changelog, commit")
    if f"\n## {version} (" not in (root / "CHANGELOG.md").read_text(encoding="utf-8"):
        raise ReleaseError(f"CHANGELOG.md has no entry for {version}: make changelog, and commit")


def build(root: Path, project: dict[str, Any]) -> dict[str, bytes]:
    """Return the files of one build of HEAD, by name.

    Modification times are those of the commit.
    """
    epoch = _git(root, "log", "-1", "--format=%ct").decode().strip()
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "source"), Path(folder, "out")
        with tarfile.open(fileobj=io.BytesIO(_git(root, "archive", "--format=tar", "HEAD"))) as archive:
            archive.extractall(source, filter="data")
        readme = source / "README.md"
        text = absolute_links(readme.read_text(encoding="utf-8"), project["urls"]["Source"], f"v{project['version']}")
        readme.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch, "PYTHONHASHSEED": "0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ReleaseError(f"the build failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return {
            path.name: normalised_sdist(path.read_bytes(), int(epoch)) if path.suffix == ".gz" else path.read_bytes()
            for path in sorted(out.iterdir())
        }


def absolute_links(text: str, repository: str, tag: str) -> str:
    """Point a README's relative links at a tag of the repository; images at their raw files.

    Example:
        >>> absolute_links("[x](docs/x.md) ![y](y.png)", "https://github.com/o/n", "v1")
        '[x](https://github.com/o/n/blob/v1/docs/x.md) ![y](https://raw.githubusercontent.com/o/n/v1/y.png)'
    """
    raw = repository.replace("https://github.com/", "https://raw.githubusercontent.com/")

    def absolute(found: re.Match[str]) -> str:
        base = f"{raw}/{tag}" if found["image"] else f"{repository}/blob/{tag}"
        return f"{found['image']}[{found['text']}]({base}/{found['path']})"

    return _LINK.sub(absolute, text)


def normalised_sdist(data: bytes, epoch: int) -> bytes:
    """Return an sdist with sorted members of one time, owner and mode; gzip's header has that time too."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as given,
        gzip.GzipFile("", "wb", fileobj=packed, mtime=epoch) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as written,
    ):
        for member in sorted(given.getmembers(), key=lambda member: member.name):
            kept = tarfile.TarInfo(member.name)
            kept.type, kept.size, kept.mtime, kept.linkname = member.type, member.size, epoch, member.linkname
            kept.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            written.addfile(kept, given.extractfile(member) if member.isfile() else None)
    return packed.getvalue()


def _git(root: Path, *arguments: str) -> bytes:
    command = ["git", "-c", "safe.directory=*", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())

"""A release: the same commit gives the same bytes, its README stands alone, and no change is forgotten."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
PYPROJECT = """
[build-system]
requires = ["setuptools>=77.0.3"]
build-backend = "setuptools.build_meta"
[project]
name = "tiny"
version = "1.2"
readme = "README.md"
urls = {Source = "https://github.com/o/tiny"}
[tool.setuptools]
packages = ["tiny"]
"""


def release_module() -> ModuleType:
    path = ROOT / "deploy" / "packages" / "release.py"
    spec = importlib.util.spec_from_file_location("release", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RELEASE = release_module()


def git(root: Path, *arguments: str) -> None:
    author = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, env={**os.environ, **author})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository of a small package with one commit."""
    root = tmp_path / "tiny"
    (root / "tiny").mkdir(parents=True)
    (root / "tiny" / "__init__.py").write_text("")
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "README.md").write_text("![p](docs/p.png) [d](docs/d.md#e) [f](#f) [g](https://x.org/y)\n")
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2 (2026-01-01)\n")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def test_one_commit_gives_the_same_bytes_wherever_it_is_built(tree: Path, tmp_path: Path) -> None:
    sums = RELEASE.release(tree, tmp_path / "out")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(tree), str(clone))
    for file in clone.rglob("*"):
        if file.is_file() and ".git" not in file.parts:
            os.utime(file, (1, 1))  # times of files are none of the release's business
    assert RELEASE.release(clone, tmp_path / "again") == sums
    assert (tmp_path / "out" / "SHA256SUMS").read_text() == sums
    assert [line.split()[1] for line in sums.splitlines()] == ["tiny-1.2-py3-none-any.whl", "tiny-1.2.tar.gz"]


def test_the_readme_of_a_release_needs_no_repository_beside_it(tree: Path) -> None:
    files = RELEASE.build(tree, tomllib.loads(PYPROJECT)["project"])
    with zipfile.ZipFile(io.BytesIO(files["tiny-1.2-py3-none-any.whl"])) as wheel:
        text = wheel.read("tiny-1.2.dist-info/METADATA").decode()
    assert "![p](https://raw.githubusercontent.com/o/tiny/v1.2/docs/p.png)" in text
    assert "[d](https://github.com/o/tiny/blob/v1.2/docs/d.md#e) [f](#f) [g](https://x.org/y)" in text
    with tarfile.open(fileobj=io.BytesIO(files["tiny-1.2.tar.gz"])) as sdist:
        members = sdist.getmembers()
    assert {(member.uid, member.uname, member.mtime) for member in members} == {(0, "", members[0].mtime)}
    assert [member.name for member in members] == sorted(member.name for member in members)


@pytest.mark.parametrize(
    ("file", "text", "commit", "message"),
    [
        ("tiny/__init__.py", "x = 1\n", False, "not committed: tiny/__init__.py"),
        ("changelog.d/+new.added.md", "New.\n", True, "1 changes wait in changelog.d"),
        ("CHANGELOG.md", "# Changelog\n", True, "CHANGELOG.md has no entry for 1.2"),
        ("pyproject.toml", PYPROJECT + "packages = 1\n", True, "Cannot overwrite a value"),
        ("tiny/__init__.py", None, True, "the build failed"),
    ],
)
def test_what_is_no_release_says_what_to_do(
    tree: Path, tmp_path: Path, file: str, text: str | None, commit: bool, message: str
) -> None:
    path = tree / file
    path.parent.mkdir(exist_ok=True)
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    if commit:
        git(tree, "add", "-A")
        git(tree, "commit", "-qm", "second")
    with pytest.raises((RELEASE.ReleaseError, tomllib.TOMLDecodeError), match=message):
        RELEASE.release(tree, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_relative_link_of_the_projects_readme_becomes_absolute() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    absolute = RELEASE.absolute_links(text, urls["Source"], "v9")
    assert f"({urls['Source']}/blob/v9/docs/architecture.md)" in absolute
    assert "/v9/docs/images/overview.svg)" in absolute
    assert "](docs/" not in absolute


@pytest.mark.slow
@pytest.mark.parametrize("pip", ["23.0", "26.0"])
@pytest.mark.parametrize("extra", ["", "[client]", "[service]", "[postgres]", "[progress]", "[aiter]"])
def test_extras_install_as_written_with_old_and_new_pips(pip: str, extra: str, tmp_path: Path) -> None:
    """Resolved only, nothing is installed; torch's extras are left to the tests that install them."""
    python = tmp_path / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "-q", f"pip~={pip}"], check=True)
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "--dry-run", f"{ROOT}{extra}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    would = next(line for line in io.StringIO(done.stdout) if line.startswith("Would install"))
    assert ("amd-aiter-" in would) == (extra == "[aiter]")
    assert " aiter-" not in would
    assert ("httpx-" in would) == (extra in ("[client]", "[service]"))
    assert ("fastapi-" in would) == (extra == "[service]")
    assert " torch-" not in would

"""Names of container images: with their registry and a version, wherever this repository writes one."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
_NAME = r"[^\s\"'`|,)]+"
_WRITTEN = (
    rf"\bimage: *[\"']?({_NAME})",
    rf"(?m)^FROM ({_NAME})",
    rf"\b(?:PYTHON_IMAGE|ROCM_BASE|IMAGE) *[?:]?= *({_NAME})",
    rf"(?:docker|podman|buildah) (?:build|bud)\b[^`]*?(?:-t|--tag)[ =]({_NAME})",
    rf"(?:docker|podman) (?:pull|push) ({_NAME})",
    rf"(?s)(?:docker|podman) run (?:(?:-\w+|--[\w-]+(?:=\S+)?)(?: [^-\s]\S*)? (?:\\\n#? *)?)*({_NAME}/{_NAME})",
)
"""Where an image's name stands in manifests, Dockerfiles, commands and values."""
_OURS = "ghcr.io/preshuffle/"
_VARIABLE = re.compile(r"\$[\w{(]|\{\{|<|…|^scratch$|^$")
"""Begins what stands for a name, and is none: a variable, a template, a placeholder."""
_GOOD = re.compile(r"(?:[\w-]+\.[\w.-]+|localhost)(?::\d+)?(?:/[\w.-]+)+(?::(?P<tag>[\w.+-]+))?(?:@sha256:[0-9a-f…]+)?")
_VERSIONED = re.compile(r"v?\d+(?:\.\d+)+(?:[.+_-].*)?")


def fault_of(name: str) -> str | None:
    """Return what is wrong with an image's name, None if nothing is."""
    match = _GOOD.fullmatch(name)
    if match is None:
        return "no registry"
    if "@sha256:" in name:
        return None
    if match["tag"] is None:
        return "no tag"
    return None if _VERSIONED.fullmatch(match["tag"]) else "a tag that moves"


def images_in(text: str) -> Iterator[str]:
    """Yield the names that are written in a file."""
    for pattern in _WRITTEN:
        found = re.findall(pattern, text.replace("$(VERSION)", VERSION))
        yield from (name for name in found if not _VARIABLE.match(name))


def files() -> list[Path]:
    """Return what may name an image: everything but code, tests, the book and earlier changes."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    apart = ("tests/", "registry/", "layouts/", "api/", "bench/", "requirements/", "CHANGELOG.md", "docs/images/")
    kinds = {".md", ".yaml", ".yml", ".tpl", ".toml", ".txt", ".sh", ""}
    names = [name for name in listed.split("\0") if name and not name.startswith(apart)]
    return [ROOT / name for name in names if Path(name).suffix in kinds and (ROOT / name).is_file()]


def test_every_image_has_its_registry_and_a_version() -> None:
    found = [(name, file.name) for file in files() for name in images_in(file.read_text())]
    assert [(name, file, fault) for name, file in found if (fault := fault_of(name))] == []
    assert {"Dockerfile", "service.md", "install.md", "deployment.yaml"} <= {file for _, file in found}
    assert {name.rpartition(":")[2] for name, _ in found if name.startswith(_OURS)} == {VERSION}


def test_no_file_names_a_tag_that_moves() -> None:
    for file in files():
        assert not re.search(r"\S:(?:latest|stable|edge|nightly|main|master)\b", file.read_text()), file


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("python:3.12", "no registry"),
        ("preshuffle", "no registry"),
        ("docker.io/library/python", "no tag"),
        ("ghcr.io/a/b:latest", "a tag that moves"),
        ("registry:5000/a:1.0", "no registry"),
        ("r.example.com:5000/a:main", "a tag that moves"),
        ("r.example.com:5000/a:v1.0-rocm", None),
        ("r.example.com/a@sha256:0af", None),
    ],
)
def test_what_is_wrong_with_a_name(name: str, fault: str | None) -> None:
    assert fault_of(name) == fault


@pytest.mark.parametrize(
    "text",
    [
        "image: preshuffle:1",
        'image: "preshuffle:1"',
        "FROM preshuffle:1 AS a",
        "ARG PYTHON_IMAGE=preshuffle:1",
        "$ docker build --target x -t preshuffle:1 .",
        "docker build . --tag=preshuffle:1",
        "docker pull preshuffle:1",
    ],
)
def test_names_are_found_where_they_stand(text: str) -> None:
    assert list(images_in(text)) == ["preshuffle:1"]

"""The version stands in one place: a new one is written everywhere else, and nowhere by mistake."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
IMAGE = re.compile(r"ghcr\.io/preshuffle/[\w-]+:([\w.+-]+)")


def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_version", ROOT / "deploy" / "packages" / "write_version.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that may name the version, in a repository of their own."""
    names = ("deploy", "docs", "Dockerfile", "README.md", "CONTRIBUTING.md")
    listed = subprocess.run(["git", "ls-files", "-z", *names], cwd=ROOT, capture_output=True, check=True).stdout
    tar = subprocess.run(
        ["tar", "-C", str(ROOT), "--null", "-T", "-", "-c"], input=listed, capture_output=True, check=True
    )
    subprocess.run(["tar", "-C", str(tmp_path), "-x"], input=tar.stdout, check=True)
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def test_another_version_is_written_everywhere_and_back(copy: Path) -> None:
    write: Any = module().write_version
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file() and ".git" not in path.parts}
    (old,) = {tag for text in before.values() for tag in IMAGE.findall(text.decode(errors="replace"))}
    changed = write(copy, "3.14.0rc1")
    assert {"Dockerfile", "deploy/kubernetes/deployment.yaml", "docs/service.md"} <= set(changed)
    texts = [path.read_text(errors="replace") for path in before]
    assert {tag for text in texts for tag in IMAGE.findall(text)} == {"3.14.0rc1"}
    chart = yaml.safe_load((copy / "deploy/helm/preshuffle/Chart.yaml").read_text())
    values = yaml.safe_load((copy / "deploy/helm/preshuffle/values.yaml").read_text())
    assert {chart["version"], chart["appVersion"], values["image"]["tag"]} == {"3.14.0rc1"}
    assert write(copy, "3.14.0rc1") == []
    write(copy, old)
    assert {path: path.read_bytes() for path in before} == before

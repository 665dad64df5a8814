"""Locks of the images: the versions of constraints.txt, what pyproject.toml asks for, and a hash for every file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
NEEDED = {
    "build": ["build", "setuptools"],
    "loader": [*PROJECT["dependencies"], "safetensors"],
    "service": [*PROJECT["dependencies"], *EXTRAS["service"], *EXTRAS["postgres"]],
}
ELSEWHERE = {"sys_platform": "linux", "os_name": "posix"}


def entries(name: str) -> list[tuple[Requirement, list[str]]]:
    """Return each requirement of a lock with its hashes."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(Requirement(line.partition(" --hash=")[0]), re.findall(r"--hash=(\S+)", line)) for line in lines]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in found}


@pytest.mark.parametrize("name", NEEDED)
def test_every_entry_is_exact_as_constrained_and_hashed(name: str) -> None:
    for needed, hashes in entries(name):
        (spec,) = needed.specifier
        assert spec.operator == "=="
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes), needed
        if needed.marker is None or needed.marker.evaluate(ELSEWHERE):
            assert pins()[canonicalize_name(needed.name)] == spec.version


@pytest.mark.parametrize("name", NEEDED)
def test_the_lock_has_all_that_is_asked_for(name: str) -> None:
    locked = {canonicalize_name(needed.name): next(iter(needed.specifier)).version for needed, _ in entries(name)}
    for needed in map(Requirement, NEEDED[name]):
        assert needed.specifier.contains(locked[canonicalize_name(needed.name)]), needed
    assert not locked.keys() & {"torch", "triton", "amd-aiter", "aiter"}


def test_every_lock_is_used_and_no_other_exists() -> None:
    assert {path.stem for path in (ROOT / "requirements").iterdir()} == set(NEEDED)
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert set(re.findall(r"--require-hashes -r \S*?(\w+)\.txt", text)) == set(NEEDED)

"""Bounds of the dependencies: what is imported is declared, and what is undocumented has an upper bound."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from support.source.modules import modules_below

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOWEST = ROOT / "deploy" / "packages" / "lowest.py"

DISTRIBUTIONS = {"yaml": "pyyaml", "re2": "google-re2", "prometheus_client": "prometheus-client", "aiter": "amd-aiter"}
"""Distributions whose name is not that of their module."""

PINNED_BY_OTHERS = {"pydantic_core": "pydantic", "triton": "torch", "flydsl": "aiter"}
"""Modules whose version their user decides: pydantic names one pydantic-core, torch its Triton, AITER its FlyDSL."""

ENGINES = {"atom", "sglang", "vllm"}
"""Engines whose own code ``conform --engine`` runs in a child process: its user says where they are."""

UNDOCUMENTED = ("uvicorn.protocols.", "einops.parsing", "prometheus_client.utils", "prometheus_client.exposition")
"""Modules of others that their documentation does not show, by the start of the name."""


def declared() -> dict[str, Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
    return {canonicalize_name(found.name): found for found in map(Requirement, lines)}


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    """Return the modules of others that the rooms import, by top-level name; reading them all takes seconds."""
    found: dict[str, set[str]] = {}
    for module in modules_below(ROOT, "registry", "layouts", "api").values():
        for node in ast.walk(module.tree):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [f"{node.module}.{alias.name}" for alias in node.names]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in {"preshuffle", *ENGINES}:
                    found.setdefault(top, set()).add(name)
    return found


def requirement_of(top: str) -> Requirement:
    owner = PINNED_BY_OTHERS.get(top, top)
    return declared()[canonicalize_name(DISTRIBUTIONS.get(owner, owner))]


def test_what_is_imported_is_declared_with_a_lower_bound(imported: dict[str, set[str]]) -> None:
    assert {"torch", "pydantic", "fastapi"} <= imported.keys()
    for top in imported:
        assert [spec for spec in requirement_of(top).specifier if spec.operator == ">="], top


def is_private(name: str) -> bool:
    parts = name.split(".")[1:]
    return any(part.startswith("_") and not part.startswith("__") for part in parts) or name.startswith(UNDOCUMENTED)


def test_what_is_undocumented_has_an_upper_bound_above_the_pinned_version(imported: dict[str, set[str]]) -> None:
    pins = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8")))
    pinned = {canonicalize_name(name): Version(version) for name, version in pins.items()}
    private = {top for top, names in imported.items() if any(map(is_private, names))} - PINNED_BY_OTHERS.keys()
    assert private
    for top in private:
        (upper,) = (spec for spec in requirement_of(top).specifier if spec.operator == "<")
        assert pinned[canonicalize_name(requirement_of(top).name)] < Version(upper.version), top


def test_the_lists_of_undocumented_modules_hold_nothing_that_is_not_used(imported: dict[str, set[str]]) -> None:
    names = {name for found in imported.values() for name in found}
    assert all(any(name.startswith(start) for name in names) for start in UNDOCUMENTED)


def test_aiters_bound_admits_its_development_versions() -> None:
    (needed,) = map(Requirement, EXTRAS["aiter"])
    assert needed.specifier.contains("0.1.7.post2.dev18")
    assert needed.specifier.prereleases


def lowest(*replacing: str) -> dict[str, str]:
    done = subprocess.run([sys.executable, LOWEST, *replacing], capture_output=True, text=True, check=True)
    return dict(line.split("==") for line in done.stdout.splitlines())


def test_the_lowest_constraints_are_the_lower_bound_of_every_requirement() -> None:
    found = {canonicalize_name(name): version for name, version in lowest().items()}
    bounds = {
        name: spec.version
        for name, needed in declared().items()
        for spec in needed.specifier
        if spec.operator == ">=" and name != "preshuffle"
    }
    assert found == bounds


def test_a_requirement_given_replaces_its_bound() -> None:
    assert lowest().keys() - lowest("torch==2.13.0").keys() == {"torch"}


def test_ci_runs_the_oldest_and_the_newest_by_targets_that_exist() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "versions.yml").read_text(encoding="utf-8"))
    text = "\n".join(step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"])
    targets = set(re.findall(r"(?m)^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    used = set(re.findall(r"\bmake ([\w-]+)", text)) | set(
        re.findall(r"test-\w+", str(workflow["jobs"]["versions"]["strategy"]))
    )
    assert {"test-lowest", "test-newest"} <= used <= targets


def test_the_pythons_that_the_package_names_are_those_that_are_tested() -> None:
    named = re.findall(r"(?m)Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    pythons = re.search(r"(?m)^PYTHONS \?= (.+)$", makefile)
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "versions.yml").read_text(encoding="utf-8"))
    assert pythons is not None
    assert [f"python{version}" for version in named] == pythons[1].split()
    assert workflow["jobs"]["pythons"]["strategy"]["matrix"]["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"

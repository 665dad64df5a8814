"""``preshuffle doctor`` on the project's extras: installed, or what would install them and what for."""

from __future__ import annotations

import re
from importlib import metadata
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from preshuffle.api.doctor.check import Check
from preshuffle.api.doctor.extras import GIVES, check_address_packages, check_extra, check_extras
from preshuffle.api.doctor.installed import Installed

ROOT = Path(__file__).parents[3]
EXTRAS = metadata.metadata("preshuffle").get_all("Provides-Extra") or []


def installed(folder: Path, **versions: str) -> Installed:
    """Distributions of these names and versions, beside the project itself."""
    found = {"preshuffle": [metadata.distribution("preshuffle")]}
    for name, version in versions.items():
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        found[name.replace("_", "-")] = [PathDistribution(info)]
    return Installed(found)


def by_name(here: Installed) -> dict[str, Check]:
    return {check.name: check for check in check_extras(here)}


def test_every_extra_but_that_of_development_says_what_it_gives() -> None:
    assert set(GIVES) == set(EXTRAS) - {"dev"}
    assert set(GIVES) == set(re.findall(r"preshuffle\[(\w+)\]'", (ROOT / "docs" / "install.md").read_text()))


@pytest.mark.parametrize("extra", sorted(GIVES))
def test_an_extra_that_is_missing_names_its_packages_and_its_command(extra: str, tmp_path: Path) -> None:
    check = by_name(installed(tmp_path))[f"extra {extra}"]
    assert (check.status, check.fix) == ("info", f'pip install "preshuffle[{extra}]"')
    assert check.detail.endswith(f"; gives {GIVES[extra]}")
    lines = map(Requirement, metadata.requires("preshuffle") or ())
    wanted = [line for line in lines if re.search(rf"extra == .{extra}\b", str(line.marker))]
    assert wanted
    for line in wanted:
        words = [f"extra {name} is not" for name in line.extras] if line.name == "preshuffle" else [line.name]
        assert [word for word in words if word not in check.detail] == []


def test_an_extra_that_is_installed_tells_versions(tmp_path: Path) -> None:
    check = by_name(installed(tmp_path, rich="13.9.4"))["extra progress"]
    assert (check.status, check.fix) == ("ok", None)
    assert check.detail == f"rich 13.9.4; {GIVES['progress']}"


def test_an_extra_within_another_counts(tmp_path: Path) -> None:
    torch = {"torch": "2.13.0+rocm7.1", "safetensors": "0.6.1", "numpy": "2.1.0", "ray": "2.48.0"}
    here = installed(tmp_path, **torch)
    assert by_name(here)["extra ray"].status == "ok"
    del here.distributions["torch"]  # type: ignore[attr-defined]
    assert by_name(here)["extra ray"].detail.startswith("extra layouts is not; ")


@pytest.mark.parametrize(("version", "within"), [("0.1", False), ("0.53.1", True), ("0.55.0", False)])
def test_a_version_outside_of_the_bounds_is_told(version: str, within: bool, tmp_path: Path) -> None:
    check = check_extra(installed(tmp_path, uvicorn=version), "service")
    assert (f"uvicorn {version} is not <0.55,>=0.53" in check.detail) is not within
    assert "fastapi is missing" in check.detail


def test_packages_of_addresses_are_listed_one_by_one(tmp_path: Path) -> None:
    check = check_address_packages(installed(tmp_path, s3fs="2026.1.0", huggingface_hub="1.0"))
    assert check.status == "info"
    assert check.detail.startswith("s3fs 2026.1.0 for s3://, s3a://; huggingface_hub 1.0 for hf://; missing: gcsfs for")
    assert check.fix is not None
    assert check.fix.startswith("pip install gcsfs or pip install adlfs")

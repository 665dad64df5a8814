"""``preshuffle doctor``: what is installed, what is wrong, and how to fix it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from importlib import metadata
from importlib.metadata import Distribution, PathDistribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.cli import main
from preshuffle.api.doctor import aiter_checks, torch_checks
from preshuffle.api.doctor.aiter_checks import check_features
from preshuffle.api.doctor.check import Check
from preshuffle.api.doctor.examine import check_aiter, check_switches
from preshuffle.api.doctor.installed import Installed
from preshuffle.api.doctor.torch_checks import check_torch
from preshuffle.registry import Registry
from preshuffle.registry.kernels import TableError
from preshuffle.registry.layer.installed_aiter import InstalledAiter, probe_sources

AMD_FILES = ("aiter/__init__.py", "aiter/fused_moe.py", "aiter/ops/shuffle.py")
OTHER_FILES = ("aiter/__init__.py", "aiter/core.py")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRESHUFFLE_BOOK", "PRESHUFFLE_TABLES", *Registry.default().book.flags):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer for torch without starting a process that imports it."""
    monkeypatch.setattr(torch_checks, "_probe", lambda: ({"hip": "7.1", "cuda": None, "devices": []}, ""))


def distribution(folder: Path, name: str, version: str, files: tuple[str, ...]) -> Distribution:
    """Return a distribution whose files are there: from Python 3.12 on, metadata leaves out those that are not."""
    for path in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))
    return PathDistribution(info)


def aiter_check(*found: Distribution) -> Check:
    by_name: dict[str, list[Distribution]] = {}
    for item in found:
        by_name.setdefault(item.metadata["Name"], []).append(item)
    (check,) = check_aiter(Installed(by_name))
    return check


def test_amds_aiter_is_distinguished_from_the_unrelated_one(tmp_path: Path) -> None:
    amd = distribution(tmp_path / "a", "amd-aiter", "0.1.16", AMD_FILES)
    source_build = distribution(tmp_path / "c", "aiter", "0.1.5.dev3", AMD_FILES)
    assert aiter_check().status == "info"
    assert aiter_check(amd).status == "ok"
    assert aiter_check(source_build).status == "ok"
    assert "older name" in aiter_check(source_build).detail


def test_the_unrelated_aiter_is_a_problem_alone_and_beside_amds(tmp_path: Path) -> None:
    amd = distribution(tmp_path / "a", "amd-aiter", "0.1.16", AMD_FILES)
    unrelated = distribution(tmp_path / "b", "aiter", "0.13.20191203", OTHER_FILES)
    for check in (aiter_check(unrelated), aiter_check(amd, unrelated)):
        assert check.status == "problem"
        assert "unrelated" in check.detail
        assert check.fix == "pip uninstall aiter && pip install --force-reinstall --no-deps amd-aiter"
    assert "beside AMD's amd-aiter 0.1.16" in aiter_check(amd, unrelated).detail


def test_this_environment_has_no_problem(no_probe: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in report["checks"]}
    assert report["ok"]
    assert report["version"] == metadata.version("preshuffle")
    assert checks["aiter"]["detail"].startswith("amd-aiter ")
    assert checks["torch"]["detail"].endswith("ROCm 7.1")
    assert Registry.default().digest.removeprefix("sha256:")[:12] in checks["registry"]["detail"]
    modules = {"service": "fastapi", "progress": "rich", "remote": "fsspec", "ray": "ray", "proofs": "tinygrad"}
    for extra, module in modules.items():
        assert checks[f"extra {extra}"]["status"] == ("ok" if find_spec(module) else "info")
    assert main(["doctor"]) == 0
    assert "nothing is wrong" in capsys.readouterr().out


def test_books_and_tables_that_do_not_load_are_problems(
    no_probe: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.yaml").write_text("rules:\n  x: {}\n")
    monkeypatch.setenv("PRESHUFFLE_BOOK", str(tmp_path))
    monkeypatch.setenv("PRESHUFFLE_TABLES", "/no/such.csv")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "x.yaml:2:" in " ".join(out.split()).replace(" ", "")
    assert "/no/such.csv" in out
    assert "fix: preshuffle registry check" in out
    assert "2 things to fix" in out


def test_valid_tables_and_overlays_are_counted(no_probe: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--tables", "auto", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["kernel tables"]["status"] == "ok"
    assert " rows" in checks["kernel tables"]["detail"]


def test_switches_name_their_readers() -> None:
    flags = Registry.default().book.flags
    found = {
        check.detail.split("=")[0]: check
        for check in check_switches(
            flags,
            {
                "ATOM_MOE_GU_ITLV": "9",
                "SGLANG_USE_AITER": "1",
                "GPTOSS_USE_GENERIC_SWIGLU_MXFP4_LAYOUT": "1",
                "HOME": "/",
            },
        )
    }
    assert found["ATOM_MOE_GU_ITLV"].status == "problem"
    assert found["ATOM_MOE_GU_ITLV"].fix == "valid: 0, 1"
    assert found["SGLANG_USE_AITER"].status == "ok"
    assert "read by sglang" in found["SGLANG_USE_AITER"].detail
    assert found["GPTOSS_USE_GENERIC_SWIGLU_MXFP4_LAYOUT"].status == "warning"
    assert len(found) == 3


compared = cache(torch_checks._run)
"""What a child process says of the bytes: of one environment it is always the same, and each imports torch."""


def checks_of_torch(monkeypatch: pytest.MonkeyPatch, **facts: Any) -> dict[str, Check]:
    monkeypatch.setattr(torch_checks, "_run", compared)
    monkeypatch.setattr(torch_checks, "_probe", lambda: ({"hip": None, "cuda": None, "devices": [], **facts}, ""))
    return {check.name: check for check in check_torch("2.13.0", Registry.default())}


def test_torch_and_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks_of_torch(monkeypatch)["torch"].detail == "2.13.0, CPU only"
    assert checks_of_torch(monkeypatch)["gpu"].status == "info"
    known = checks_of_torch(monkeypatch, hip="7.1", devices=[["MI355X", "gfx950", 256]])["gpu"]
    assert (known.status, known.detail) == ("ok", "MI355X: gfx950, 256 compute units")
    unknown = checks_of_torch(monkeypatch, hip="7.1", devices=[["Radeon", "gfx1030", 40]])["gpu"]
    assert unknown.status == "warning"
    without = checks_of_torch(monkeypatch, hip="7.1", devices=[["W7900", "gfx1100", 96]])["gpu"]
    assert (without.status, "no fused MoE of AITER for gfx1100" in without.detail) == ("warning", True)
    other = checks_of_torch(monkeypatch, cuda="13.0", devices=[["H200", "", 132]])["gpu"]
    assert "not an AMD GPU" in other.detail


@pytest.mark.parametrize(("version", "index"), [("7.2.1-65\n", "/whl/rocm7.2"), ("?", "/whl/cpu"), (None, "/whl/cpu")])
def test_torch_is_taken_from_the_index_of_what_is_installed(
    version: str | None, index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if version is not None:
        (tmp_path / "version").write_text(version)
    monkeypatch.setattr(torch_checks, "_ROCM_VERSION", tmp_path / "version")
    (absent,) = check_torch(None, None)
    assert index in (absent.fix or "")
    assert "/whl/rocm7." in absent.detail
    assert "/whl/cpu" in absent.detail
    cuda = checks_of_torch(monkeypatch, cuda="13.0")["torch"]
    assert cuda.status == "info"
    assert "AITER needs a ROCm build" in cuda.detail
    assert (cuda.fix or "").endswith(index)


def test_missing_or_broken_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    (absent,) = check_torch(None, None)
    assert absent.status == "info"
    assert absent.fix is not None
    assert absent.fix.endswith('/whl/cpu && pip install "preshuffle[layouts]"')

    def answering(code: int, out: str, err: str) -> None:
        done = subprocess.CompletedProcess([], code, out, err)
        monkeypatch.setattr(subprocess, "run", lambda *_args, **_options: done)

    answering(1, "", "Traceback\nImportError: libamdhip64.so: cannot open")
    (broken,) = check_torch("2.13.0", None)
    assert broken.status == "problem"
    assert broken.detail.endswith("ImportError: libamdhip64.so: cannot open")
    answering(-11, "", "")
    assert "-11" in next(check_torch("2.13.0", None)).detail
    answering(0, "noise", "")
    assert "could not be read" in next(check_torch("2.13.0", None)).detail


def test_a_process_that_hangs_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_args: Any, **_options: Any) -> None:
        raise subprocess.TimeoutExpired("python", 120)

    monkeypatch.setattr(subprocess, "run", hang)
    assert "timed out" in next(check_torch("2.13.0", None)).detail


def test_aiter_is_never_imported(tmp_path: Path) -> None:
    program = (
        "import sys; from preshuffle.api.cli import main; code = main(['doctor', '--json']); "
        "print(code, sorted({'aiter', 'torch', 'triton'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == "0 []\n"


SHUFFLE = """
def shuffle_weight(x, layout=(16, 16), use_int4=False, is_guinterleave=False, gate_up=False): ...
def shuffle_weight_a16w4(src, NLane, gate_up): ...
def shuffle_scale_a16w4(src, experts_cnt, gate_up): ...
def shuffle_scale(src, experts_cnt=None, is_guinterleave=False, gate_up=False): ...
"""


def an_aiter(folder: Path, version: str, fused_moe: str) -> InstalledAiter:
    (folder / "ops").mkdir(parents=True)
    (folder / "fused_moe.py").write_text(fused_moe)
    (folder / "ops" / "shuffle.py").write_text(SHUFFLE)
    return InstalledAiter(folder, version, probe_sources(Registry.default().book, folder))


def test_features_are_read_from_aiters_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = an_aiter(tmp_path, "0.1.14", "def fused_moe(x, w1, w2, gate_mode=None, swiglu_limit=0.0): ...")
    monkeypatch.setattr(aiter_checks, "installed_aiter", lambda book: here)
    checks = {check.name: check for check in check_features(Registry.default().book)}
    assert {"gate_mode", "swiglu_limit", "shuffle_scale"} <= set(checks["aiter has"].detail.split(", "))
    assert {"moe_shuffle_gfx1250", "pad_k_to"} <= set(checks["aiter lacks"].detail.split(", "))
    assert checks["aiter has"].status == "ok"


def test_a_cherry_picked_feature_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = an_aiter(tmp_path, "0.1.13", "def fused_moe(x, w1, w2, gate_mode=None): ...")
    monkeypatch.setattr(aiter_checks, "installed_aiter", lambda book: here)
    checks = {check.name: check for check in check_features(Registry.default().book)}
    assert "gate_mode" in checks["aiter has"].detail.split(", ")
    assert checks["aiter version"].status == "warning"
    assert "version 0.1.13 contradicts its sources, which show gate_mode" in checks["aiter version"].detail


def test_without_aiter_no_features_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(book: object) -> InstalledAiter:
        raise TableError("amd-aiter", "is not installed")

    monkeypatch.setattr(aiter_checks, "installed_aiter", missing)
    assert list(check_features(Registry.default().book)) == []

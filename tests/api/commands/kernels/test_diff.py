"""``preshuffle kernels diff``: which deployments and shapes get another kernel, the gravest change first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.cli import main
from preshuffle.api.commands.kernels import book_deployments
from preshuffle.api.commands.kernels.book_deployments import BookDeployment
from preshuffle.registry import Registry
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.kernels.survey.compare import SEVERITIES
from support.aiter.kernel_rows import GUI, SEP, write


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRESHUFFLE_TABLES", "PRESHUFFLE_BOOK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "140")


@pytest.fixture(autouse=True, scope="module")
def _same_deployments() -> Iterator[None]:
    """Decide each deployment of a version once: seconds for a few calls, and nothing of the tables in them."""
    found: dict[Any, BookDeployment | None] = {}
    first = book_deployments._first

    def cached(
        registry: Registry, fields: dict[str, Any], versions: Sequence[str], memo: Memo
    ) -> BookDeployment | None:
        for version in versions:
            key = (*fields.items(), version)
            if key not in found:
                found[key] = first(registry, fields, (version,), memo)
            if found[key] is not None:
                return found[key]
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book_deployments, "_first", cached)
        yield


def compared(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert main(["kernels", "diff", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_a_version_and_itself(capsys: pytest.CaptureFixture[str]) -> None:
    report = compared(capsys, "@0.1.20", "@0.1.20")
    assert (report["changes"], report["counts"], report["left_out"]) == ([], {}, 0)
    assert report["compared"] >= 4 * len(Registry.default().book.models)
    assert main(["kernels", "diff", "@0.1.20", "@0.1.20", "--models-only"]) == 0
    assert "nothing changes" in capsys.readouterr().out


def test_a_layout_change_comes_first_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = write(tmp_path / "a", {"token": "512", "kernelName1": SEP}, {"token": "1024", "kernelName1": SEP})
    new = write(tmp_path / "b", {"token": "512", "kernelName1": f"{SEP}_fp4"}, {"token": "1024", "kernelName1": GUI})
    report = compared(capsys, f"{old}@0.1.20", f"{new}@0.1.20", code=1)
    severities = [change["severity"] for change in report["changes"]]
    assert severities == sorted(severities, key=SEVERITIES.index)
    assert set(severities) == {"layout", "kernel"}
    assert report["counts"] == {name: severities.count(name) for name in ("layout", "kernel")}
    first = report["changes"][0]
    assert (first["lo"], first["hi"]) == (513, 1024)
    assert (first["before"]["reads"]["w13_weight"], first["after"]["reads"]["w13_weight"]) == ("sep16", "gui16")
    subjects = {change["subject"] for change in report["changes"]}
    assert any(name.startswith("openai/gpt-oss-120b on gfx950, TP 1") for name in subjects)
    assert any(name.startswith("gfx950 256 CUs, 3072×3072, 128 experts top 4") for name in subjects)


def test_only_another_kernel_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = write(tmp_path / "a", {"token": "512", "kernelName1": SEP})
    kept = compared(capsys, f"{old}@0.1.20", "@0.1.20", "--severity", "activation")
    assert kept["changes"] == []
    assert set(kept["counts"]) <= {"kernel"}


def test_the_screen_shows_what_differs_and_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "diff", "@0.1.13", "@0.1.20", "--models-only"]) == 1
    text = capsys.readouterr().out
    assert "layout  other bytes are read" in text
    assert "w13_weight gui16" in text
    assert "pass gate_mode=interleave, which one side does not have" in " ".join(text.split())
    line = next(line for line in text.splitlines() if "openai/gpt-oss-120b on gfx950, TP 1" in line)
    assert " all " in line


def test_an_error_that_only_the_old_side_has_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"token": "512", "act_type": "ActivationType.Situv2", "q_dtype_a": "torch.bfloat16"}
    tables = write(tmp_path / "a", {**row, "kernelName1": "flydsl_moe1_abf16_wfp4_bf16_t32x128x256_w2"})
    report = compared(capsys, f"{tables}@0.1.18", f"{tables}@0.1.19")
    assert "error" in report["counts"]
    report = compared(capsys, f"{tables}@0.1.19", f"{tables}@0.1.18", code=1)
    assert "error" in report["counts"]

"""Commands take GPUs by product and by torch's name."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.cli import main

CALL: dict[str, Any] = {
    "cu_num": 256,
    "tokens": 16,
    "model_dim": 3072,
    "inter_dim": 3072,
    "expert": 128,
    "topk": 4,
    "activation": "Swiglu",
    "weight_dtype": "fp4x2",
    "quant_type": "per_1x32",
}
OTHER = "arch 'H200' is an NVIDIA GPU; the layouts and kernels here are AITER's, which runs on AMD GPUs only"


def shown(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(list(words)) == code
    out, err = capsys.readouterr()
    return " ".join(f"{out} {err}".split())


@pytest.mark.parametrize("name", ["gfx950:sramecc+:xnack-", "MI355X", "AMD Instinct MI350X", "gfx950"])
def test_calls(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    answers = []
    for gfx in (name, "gfx950"):
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"gfx": gfx, **CALL})))
        answers.append(shown(capsys, "kernels", "predict", "--calls", "-", "--json"))
        answers.append(shown(capsys, "kernels", "explain", "--json", "--call", json.dumps({"gfx": gfx, **CALL})))
    assert answers[:2] == answers[2:]


def test_a_product_in_a_call_gives_the_compute_units(capsys: pytest.CaptureFixture[str]) -> None:
    call = {**CALL, "gfx": "MI308X"}
    del call["cu_num"]
    assert '"cu_num":80' in shown(capsys, "kernels", "explain", "--json", "--call", json.dumps(call))
    assert "gfx: string should match" in shown(capsys, "kernels", "explain", "--call", '{"gfx": "H200"}', code=2)


def test_coverage_says_why_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("kernels", "coverage", "openai/gpt-oss-120b", "--tp", "1", "--arch")
    assert "gfx950" in shown(capsys, *words, "gfx950:sramecc+:xnack-")
    assert "engines run Triton there, on plain bytes" in shown(capsys, *words, "R9700", code=1)
    assert OTHER in shown(capsys, *words, "H200", code=1)


@pytest.mark.parametrize("name", ["MI355X", "gfx950:sramecc+:xnack-"])
def test_entries_are_shown_by_any_name(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert shown(capsys, "registry", "show", "archs", name) == shown(capsys, "registry", "show", "archs", "gfx950")


def test_models_are_shown_by_any_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert "openai/gpt-oss-120b" in shown(capsys, "registry", "show", "models", "gpt-oss-120b")


@pytest.mark.parametrize(
    ("arch", "note"),
    [
        ("H200", OTHER),
        ("gfx1102", "arch 'gfx1102' is an AMD GPU that AITER has no fused MoE for"),
        ("mi35x", "unknown arch 'mi35x'; did you mean MI355X, MI350X or MI325X?"),
    ],
)
def test_check_says_what_the_gpu_is(capsys: pytest.CaptureFixture[str], tmp_path: Path, arch: str, note: str) -> None:
    observed = {"query": {"model": "openai/gpt-oss-120b", "arch": arch}, "applied": {}}
    path = tmp_path / "deployment.json"
    path.write_text(json.dumps(observed))
    assert note in shown(capsys, "check", str(path), code=3)
    assert note in shown(capsys, "resolve", "--model", "openai/gpt-oss-120b", "--arch", arch, code=1)

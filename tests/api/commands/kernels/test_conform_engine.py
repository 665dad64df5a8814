"""``preshuffle conform --engine``: a tiny engine is really run; what is missing is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from preshuffle.api.cli import main
from preshuffle.layouts.conform.engines import engine_source
from preshuffle.registry.values.conformance import ConformanceReport
from support.engines.fake_engine import CONFIG, ONE_BYTE, RIGHT, write_aiter, write_engine
from support.engines.trees import RELEASES

VERSION = RELEASES["atom"]
LAYER = ["--layers", "qwen3-30b"]
NOT_ON_GFX942 = """
from aiter.jit.utils.chip_info import get_gfx
if get_gfx() == "gfx942":
    raise ImportError("no gfx942")
"""


@pytest.fixture
def only_engine(tmp_path: Path) -> list[str]:
    return ["conform", "--aiter", str(write_aiter(tmp_path / "aiter")), "--only", "engine"]


def run(command: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    code = main([*command, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_equal_bytes_agree_and_one_wrong_byte_does_not(
    only_engine: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = write_engine(tmp_path / "engine", RIGHT)
    command = [*only_engine, "--engine", f"atom@{engine}", *LAYER]
    code, answer = run(command, capsys)
    report = ConformanceReport.model_validate(answer)
    result = report.claims["engine"]
    assert (code, report.engine, report.verdict) == (0, f"atom@{VERSION}", "agrees"), answer
    assert (result.tried, result.agreed, result.not_run) == (8, 8, ())
    assert report.summary() == f"8 of 8 engine layers of atom@{VERSION}"
    assert not report.complete
    assert str(tmp_path) not in json.dumps(answer)

    write_engine(engine, ONE_BYTE)
    (engine / "atom" / "config.py").write_text(NOT_ON_GFX942 + CONFIG, encoding="utf-8")
    code, answer = run(command, capsys)
    found, result = answer["claims"]["engine"]["disagreements"], answer["claims"]["engine"]
    assert (code, result["tried"], result["agreed"]) == (1, 4, 1), answer
    assert [item["case"] for item in found] == [f"qwen3-30b gfx950 tp{tp}" for tp in (1, 2, 4)]
    assert {item["entry"] for item in found} == {"recipes.atom.bf16.sep16"}
    assert {item["source"].partition(":")[0] for item in found} == {"atom/model_ops/moe.py"}
    assert found[0]["there"].startswith("w1: byte 5 is 0x")
    assert found[0]["there"].endswith("1 of 6,291,456 differ")
    (left,) = result["not_run"]
    assert left["what"] == f"atom@{VERSION}: 4 layers on gfx942"
    assert left["why"] == "ImportError: no gfx942 (config.py:4)"


def test_an_engine_that_is_not_here_is_said(
    only_engine: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_source, "find_spec", lambda name: None)
    code, answer = run([*only_engine, "--engine", "vllm"], capsys)
    assert code == 3
    (left,) = answer["claims"]["engine"]["not_run"]
    assert left["what"] == "vllm: its own conversions of small layers"
    assert left["why"] == "vLLM is not installed here; give --engine vllm@DIR or vllm@WHEEL"
    assert answer["engine"] == "vllm"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "vlm"], "did you mean vllm?; valid: "),
        (["--engine", "vllm@/nowhere"], "/nowhere: no such folder or wheel; valid: a version"),
        (["--engine", "atom", "--layers", "qwen3-30"], "did you mean qwen3-30b?; valid: gpt-oss-120b, "),
    ],
)
def test_wrong_engines_and_layers_are_one_line(
    arguments: list[str], message: str, only_engine: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*only_engine, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err

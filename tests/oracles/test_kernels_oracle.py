"""Every recorded answer of AITER's own dispatch, where the recordings lie beside the repository."""

import json
from pathlib import Path
from typing import Any

import pytest

from preshuffle.registry.kernels import DispatchCall, KernelChoice, KernelTables, dispatch

ORACLE = Path(__file__).resolve().parents[3] / "shared" / "oracle"
PLAIN = ("activation_dtype", "padded_tokens", "block_m", "ksplit", "run_1stage", "tuned")
RECORDINGS = [
    pytest.param("dispatch.jsonl", "configs", "0.1.20.dev+ge4048607a5", id="snapshot-2026-08"),
    pytest.param("dispatch.jsonl", "configs", None, id="newest-known"),
    pytest.param("dispatch_wheel.jsonl", "configs_wheel", "0.1.7.post2.dev18", id="wheel-0.1.7"),
]

pytestmark = pytest.mark.skipif(not ORACLE.is_dir(), reason=f"no recordings of AITER's dispatch at {ORACLE}")


def recorded(out: dict[str, Any]) -> dict[str, Any]:
    stages = {s: (out[s]["func"], out[s]["kernel"]) if out[s] else None for s in ("stage1", "stage2")}
    error = out["error"].partition(":")[0] if out["error"] else None
    return {name: out[name] for name in PLAIN} | stages | {"error": error, "source": out["row"]}


def predicted(choice: KernelChoice) -> dict[str, Any]:
    stages = {
        name: (stage.func, stage.kernel) if stage is not None else None
        for name, stage in (("stage1", choice.stage1), ("stage2", choice.stage2))
    }
    error = choice.error.partition(":")[0] if choice.error else None
    return {name: getattr(choice, name) for name in PLAIN} | stages | {"error": error, "source": choice.source}


@pytest.mark.parametrize(("recording", "configs", "aiter"), RECORDINGS)
def test_every_recorded_line_is_predicted(recording: str, configs: str, aiter: str | None) -> None:
    tables = KernelTables.load([ORACLE / configs])
    lines = [json.loads(line) for line in (ORACLE / recording).read_text(encoding="utf-8").splitlines()]
    wrong = {}
    for line in lines:
        choice = dispatch(DispatchCall(**line["in"], aiter=aiter), tables)
        if predicted(choice) != recorded(line["out"]):
            wrong[line["id"]] = (line["in"], recorded(line["out"]), predicted(choice))
    assert len(lines) > 1000
    assert not wrong, f"{len(wrong)} of {len(lines)} lines differ, the first: {next(iter(wrong.items()))}"


def test_every_tuned_name_belongs_to_a_family() -> None:
    for configs in ("configs", "configs_wheel"):
        hazards = KernelTables.load([ORACLE / configs]).hazards
        assert [hazard for hazard in hazards if hazard.code == "stale_row"] == []


def test_every_choice_says_what_it_reads_or_why_not() -> None:
    tables = KernelTables.load([ORACLE / "configs"])
    lines = [json.loads(line)["in"] for line in (ORACLE / "dispatch.jsonl").read_text(encoding="utf-8").splitlines()]
    choices = [dispatch(DispatchCall(**call, aiter="0.1.20.post1"), tables) for call in lines]
    silent = [
        (choice, stage)
        for choice in choices
        for stage in (choice.stage1, choice.stage2)
        if stage is not None and not stage.reads and not choice.notes
    ]
    assert silent == []

"""Gate of an engine's pod in front of the service: what opens it, what closes it, and who says so."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from support.service.server import REPORT, running_server

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "deploy" / "kubernetes" / "engine-probe.example.yaml"


def gate(tmp_path: Path, url: str) -> tuple[int, str, str]:
    """Run the example of a gate against a service; return code, output and what the pod's log gets.

    The engine serves while the file ``serves`` is there.
    """
    script = yaml.safe_load(EXAMPLE.read_text())["spec"]["containers"][0]["readinessProbe"]["exec"]["command"][2]
    log = tmp_path / "log"
    for old, new in (
        ("http://127.0.0.1:8000/health", f"file://{tmp_path}/serves"),
        ("http://preshuffle.preshuffle.svc", url),
        ("/tmp/preshuffle-gate", str(tmp_path / "gate")),
        ("/proc/1/fd/2", str(log)),
        ("--max-time 2", "--max-time 0.3"),
    ):
        assert old in script
        script = script.replace(old, new)
    ended = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout, log.read_text() if log.exists() else ""


def begin(tmp_path: Path) -> None:
    """Begin as in a new container, with an engine that serves."""
    for file in tmp_path.glob("gate*"):
        file.unlink()
    (tmp_path / "serves").touch()


def test_a_gate_that_is_blocked_is_seen_and_opens(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    begin(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as blocked:  # as a policy does it: no response at all
        url = f"http://127.0.0.1:{blocked.getsockname()[1]}"
        runs = [gate(tmp_path, url) for _ in range(5)]
    assert [code for code, _, _ in runs] == [1, 1, 1, 0, 0]
    assert "preshuffle does not answer (curl: (28)" in runs[0][1]
    assert "has this namespace the label preshuffle.io/client=true?" in runs[0][1]
    assert runs[-1][2].count("The gate is open") == 1


def test_a_gate_waits_for_the_engine_and_for_all_its_stages_and_refuses_what_is_wrong(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    wrong = json.loads(json.dumps(REPORT))
    wrong["groups"][0]["observation"]["applied"]["tensors"]["w13_weight"]["layout"] = "gui16"
    with running_server(tmp_path / "store.db") as server:
        deployment = f"{server.url}/v1/deployments/gpt-oss-prod"
        assert gate(tmp_path, server.url) == (1, "the engine does not serve\n", "")
        begin(tmp_path)
        assert gate(tmp_path, server.url) == (1, "preshuffle has no report of gpt-oss-prod yet.\n", "")
        stages = [{**REPORT, "pipeline": {"stage": stage, "stages": 2}} for stage in (0, 1)]
        assert httpx.put(f"{deployment}?replica=0", json=stages[0]).status_code == 201
        code, said, _ = gate(tmp_path, server.url)
        assert (code, "stage 1 of 2 of replica 0 has not reported" in said) == (1, True)
        assert httpx.put(f"{deployment}?replica=1024", json={**stages[1], **wrong}).status_code == 200
        for _ in range(4):  # it is refused however often it is asked
            code, said, _ = gate(tmp_path, server.url)
            assert (code, "preshuffle refuses: " in said) == (1, True)
        assert httpx.put(f"{deployment}?replica=1024", json=stages[1]).status_code == 200
        assert gate(tmp_path, server.url) == (0, "", "")
        assert httpx.put(f"{deployment}?replica=1024", json={**stages[1], **wrong}).status_code == 200
        assert gate(tmp_path, server.url) == (0, "", "")  # a book that changes takes no fleet down
        (tmp_path / "serves").unlink()
        assert gate(tmp_path, server.url)[0] == 1

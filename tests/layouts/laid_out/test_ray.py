"""A real Ray cluster of several nodes on this machine writes what threads write, though a node dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preshuffle.layouts.laid_out import (
    LaidOutError,
    RayExecutor,
    RunEvent,
    convert_laid_out,
    lay_out_checkpoint,
    verify_laid_out,
)
from preshuffle.layouts.laid_out.cluster import nodes, ray_executor
from support.tensors import dying_node
from support.tensors.laid_out import contents
from support.tensors.lay_out_process import FIELDS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]
TESTS = Path(__file__).parents[2]
STORE = 80 << 20
"""Bytes of a node's object store; Ray takes no less than 75 MiB."""

SOON = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 10}
"""For Ray to see a node's death within seconds."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without processors, and two nodes with one each."""
    pytest.importorskip("ray", reason="Ray is not installed (extra ray)")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False, "_system_config": SOON}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = Cluster(initialize_head=True, connect=False, head_node_args=head)
            for _ in range(2):
                found.add_node(num_cpus=1, object_store_memory=STORE)
        yield found
        found.shutdown()


def test_a_node_with_another_book_is_named(
    cluster: Any, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = nodes.expectation
    monkeypatch.setattr(ray_executor, "expectation", lambda *given: real(*given)._replace(book="sha256:other"))
    with pytest.raises(LaidOutError, match=rf"node {os.uname().nodename} \(.*\): its preshuffle has another book"):
        lay_out_checkpoint(checkpoint, tmp_path / "out", executor=RayExecutor(cluster.address), **FIELDS)


def test_a_node_without_preshuffle_is_named(cluster: Any, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['preshuffle'] = None\n")
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE, env_vars={"PYTHONPATH": str(tmp_path)})
    try:
        with pytest.raises(LaidOutError, match=r"node .*: preshuffle with .* is not installed there"):
            lay_out_checkpoint(checkpoint, tmp_path / "out", executor=RayExecutor(cluster.address), **FIELDS)
    finally:
        cluster.remove_node(node)


def test_a_driver_is_killed_and_the_same_command_resumes(
    cluster: Any, checkpoint: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "preshuffle", "apply", str(checkpoint), str(out), "--executor", "ray"]
    fields = ["--arch", "gfx950", "--activation-dtype", "fp4x2", "--tp", "2", "--json"]
    options = ["--ray-address", cluster.address, "--workers", "1"]
    with subprocess.Popen([*command, *options, *fields], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        events = (json.loads(line)["event"] for line in driver.stdout)
        assert "file" in events  # up to the first one
        driver.kill()
    assert not (out / "manifest.json").exists()
    done = subprocess.run([*command, *options, *fields], capture_output=True, text=True, check=True)
    *lines, result = (json.loads(line) for line in done.stdout.splitlines())
    assert [line["event"] for line in lines].count("resumed") >= 1
    assert result["out"] == str(out)
    assert contents(out) == whole


def test_a_cluster_converts_without_the_checkpoint(
    cluster: Any, checkpoint: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    executor = RayExecutor(cluster.address)
    convert_laid_out(checkpoint.parent / "whole", tmp_path / "one", tp=1, executor=executor)
    convert_laid_out(tmp_path / "one", tmp_path / "two", tp=2, executor=executor)
    assert contents(tmp_path / "two") == whole


def alive(found: list[dict[str, Any]]) -> set[str]:
    return {node["NodeID"] for node in found if node["Alive"]}


def test_a_node_dies_in_the_middle_of_a_file(
    cluster: Any, checkpoint: Path, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray_executor, "write_unit", dying_node.write_unit)
    events: list[RunEvent] = []
    with RayExecutor(cluster.address) as executor:
        before = alive(ray.nodes())
        lay_out_checkpoint(checkpoint, tmp_path / "out", executor=executor, listener=events.append, **FIELDS)
        after = alive(ray.nodes())
    assert len(after) == len(before) - 1
    assert contents(tmp_path / "out") == whole
    died = (tmp_path / dying_node.DIED).read_text()
    assert [event.file for event in events if event.event == "file"].count(died) == 1
    assert verify_laid_out(tmp_path / "out", against=checkpoint, full=True).verdict == "ok"

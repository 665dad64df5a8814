"""Units as tasks of a cluster: the same files, nodes checked, lost tasks repeated, errors by name.

The cluster is a stand-in here; ``test_ray.py`` takes a real one.
"""

from __future__ import annotations

import io
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from preshuffle import __version__
from preshuffle.layouts import Checkpoint, CheckpointError
from preshuffle.layouts.laid_out import (
    LaidOutError,
    RayExecutor,
    RunEvent,
    convert_laid_out,
    lay_out_checkpoint,
)
from preshuffle.layouts.laid_out.cluster import connection, nodes, ray_executor, unit_task
from preshuffle.layouts.laid_out.cluster.partial_sizes import partial_sizes
from preshuffle.layouts.laid_out.cluster.shipped import check_node
from preshuffle.layouts.laid_out.convert import LayerRestorer
from preshuffle.layouts.laid_out.runs import shard_pieces
from preshuffle.layouts.laid_out.runs.run_plan import RunPlan
from preshuffle.registry import Registry
from support.ray_in_process import FakeRay, NoChecks, connecting
from support.tensors.laid_out import checkpoint_with_others, contents
from support.tensors.lay_out_process import FIELDS

FIRST = "rank-tp0-ep0-layer-00000.safetensors"


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(ray_executor, "check_installed", lambda: None)
    monkeypatch.setattr(ray_executor, "connected", connecting(fake))
    monkeypatch.setattr(ray_executor, "check_nodes", lambda ray, expected: NoChecks())
    monkeypatch.setattr(unit_task, "_problems_here", lambda expected: check_node(expected)[1])
    return fake


def lay_out(checkpoint: Path, out: Path, **options: Any) -> list[RunEvent]:
    events: list[RunEvent] = []
    lay_out_checkpoint(checkpoint, out, executor=RayExecutor(**options), listener=events.append, **FIELDS)
    return events


def test_a_cluster_writes_what_threads_write(
    checkpoint: Path, tmp_path: Path, whole: dict[str, bytes], ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint.parent)  # tasks have another working directory
    monkeypatch.setattr(ray_executor, "_EVERY", 0.0)
    events = lay_out(Path("checkpoint"), tmp_path / "out")
    assert contents(tmp_path / "out") == whole
    assert [event.event for event in events].count("file") == 6
    assert events[-1].done == events[-1].total
    assert [event.done for event in events] == sorted(event.done for event in events)
    again = lay_out(checkpoint, tmp_path / "out")
    assert [event.event for event in again].count("resumed") == 6
    assert contents(tmp_path / "out") == whole


def test_kept_scales_go_through_the_cluster_too(tmp_path: Path, ray: FakeRay) -> None:
    from support.tensors.laid_out import QWEN, quantized

    source = checkpoint_with_others(tmp_path / "checkpoint", quantized(QWEN, "quark tensor"))
    fields: dict[str, Any] = {"arch": "gfx942", "ep": 2}
    lay_out_checkpoint(source, tmp_path / "whole", **fields)
    lay_out_checkpoint(source, tmp_path / "out", executor=RayExecutor(), **fields)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert list((tmp_path / "out").glob("kept-*.safetensors"))


def test_a_cluster_converts_what_threads_convert(
    checkpoint: Path, whole: dict[str, bytes], tmp_path: Path, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # tasks have another working directory
    source = checkpoint.parent / "whole"
    convert_laid_out(source, tmp_path / "wanted", tp=1)
    ray.lost = {"layer 1": 1}
    events: list[RunEvent] = []
    convert_laid_out(source, Path("out"), tp=1, executor=RayExecutor(), listener=events.append)
    assert contents(tmp_path / "out") == contents(tmp_path / "wanted")
    assert [name for name in ray.submitted if name.startswith("layer")] == ["layer 0", "layer 1"]
    assert [event.event for event in events].count("file") == 2
    assert contents(source) == whole


def test_a_layer_that_is_there_is_not_restored_again(
    checkpoint: Path, whole: dict[str, bytes], tmp_path: Path, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = checkpoint.parent / "whole", tmp_path / "out"
    made: list[Path] = []
    make = LayerRestorer.make

    def failing(self: LayerRestorer, layer: int, folder: Path) -> None:
        made.append(folder)
        make(self, layer, folder)
        if layer == 1 and len(made) == 2:
            raise MemoryError("too much")

    monkeypatch.setattr(LayerRestorer, "make", failing)
    with pytest.raises(LaidOutError, match="layer 1: its task failed: MemoryError: too much"):
        convert_laid_out(source, out, tp=1, executor=RayExecutor(workers=1))
    assert not (out / "manifest.json").exists()
    assert not any(folder.exists() for folder in made)
    events: list[RunEvent] = []
    convert_laid_out(source, out, tp=1, executor=RayExecutor(workers=1), listener=events.append)
    assert [event.event for event in events].count("resumed") == 1
    assert len(made) == len(set(made)) == 3
    assert not (out / ".unfinished").exists()


def test_tasks_at_once_are_limited_and_hashes_come_first(checkpoint: Path, tmp_path: Path, ray: FakeRay) -> None:
    lay_out(checkpoint, tmp_path / "out", workers=1)
    assert ray.most == 1
    assert ray.submitted[0] == "hash model-00001-of-00002.safetensors"
    assert len(ray.submitted) == len(set(ray.submitted)) == 8


def test_shards_are_hashed_in_pieces_ahead_of_their_units(
    checkpoint: Path, tmp_path: Path, whole: dict[str, bytes], ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_pieces, "PIECE", 1 << 16)
    lay_out(checkpoint, tmp_path / "out", workers=3)
    assert contents(tmp_path / "out") == whole
    first = next(number for number, name in enumerate(ray.submitted) if not name.startswith("hash"))
    hashes = [name for name in ray.submitted if name.startswith("hash")]
    assert len(hashes) > 4
    assert ray.submitted[:first] == hashes[:first]
    assert {name.split()[1] for name in hashes[:first]} == {path.name for path in checkpoint.glob("*.safetensors")}


def test_progress_is_read_from_unfinished_files(checkpoint: Path, tmp_path: Path) -> None:
    unit = next(RunPlan.of(Checkpoint.open(checkpoint), FIELDS).units())
    for number, size in enumerate((1 << 20, 1 << 19)):  # the second is of a repeated task
        (tmp_path / f"{unit.file}.{number:08x}.partial").write_bytes(bytes(size))
    (tmp_path / f"others.safetensors.{0:08x}.partial").write_bytes(bytes(1 << 20))
    (tmp_path / unit.file).write_bytes(bytes(1 << 20))
    sizes = partial_sizes(tmp_path, [unit])
    assert set(sizes) == {unit.file}
    assert (1 << 19) < sizes[unit.file] < (1 << 20)


def test_a_lost_task_is_repeated_until_it_is_enough(
    checkpoint: Path, tmp_path: Path, whole: dict[str, bytes], ray: FakeRay
) -> None:
    ray.lost = {FIRST: 2}
    with pytest.raises(LaidOutError, match=rf"{FIRST}: its task ended 2 times .* died; run the same command again"):
        lay_out(checkpoint, tmp_path / "out", retries=1)
    assert ray.cancelled
    assert not (tmp_path / "out" / "manifest.json").exists()
    events = lay_out(checkpoint, tmp_path / "out", retries=2)
    assert contents(tmp_path / "out") == whole
    assert len([event for event in events if event.event == "file"]) >= 1


def test_what_a_dead_node_left_is_removed(
    checkpoint: Path, tmp_path: Path, whole: dict[str, bytes], ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_unit(unit: Any, sources: Any, out: Path, *rest: Any) -> Any:
        (out / f"{unit.file}.0badcafe.partial").write_bytes(b"half")
        return unit_task.write_unit(unit, sources, out, *rest)

    monkeypatch.setattr(ray_executor, "write_unit", write_unit)
    lay_out(checkpoint, tmp_path / "out")
    assert contents(tmp_path / "out") == whole


def test_errors_of_tasks_are_those_of_threads(checkpoint: Path, tmp_path: Path, ray: FakeRay) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / FIRST).write_bytes(b"nothing")
    with pytest.raises(LaidOutError, match="is there, and not what a run writes"):
        lay_out(checkpoint, tmp_path / "out")
    (tmp_path / "out" / FIRST).unlink()

    def fail(*_: Any) -> None:
        raise MemoryError("too much")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unit_task, "fill", fail)
        with pytest.raises(LaidOutError, match=r"safetensors: its task failed: MemoryError: too much"):
            lay_out(checkpoint, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.partial"))


def test_a_shard_that_changes_meanwhile(checkpoint: Path, tmp_path: Path, ray: FakeRay) -> None:
    path = checkpoint / "model-00002-of-00002.safetensors"
    before = path.stat()
    state = (before.st_size, before.st_mtime_ns - 1, before.st_ino, before.st_ctime_ns)
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002.*changed while it was read"):
        unit_task.check_state(path, state)
    unit_task.check_state(path, (before.st_size, before.st_mtime_ns, before.st_ino + 1, 0))  # another mount
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        unit_task.check_state(path.with_name("no"), state)


def test_what_a_node_must_have(checkpoint: Path, tmp_path: Path) -> None:
    shard = checkpoint / "model-00001-of-00002.safetensors"
    (tmp_path / "out" / ".unfinished").mkdir(parents=True)
    right = nodes.expectation(tmp_path / "out", [shard])
    answer = tmp_path / "out" / ".unfinished" / "answer"
    assert tuple(check_node(right, str(answer))) == (socket.gethostname(), ())
    assert answer.read_text() == right.content
    wrong: dict[str, dict[str, Any]] = {
        f"preshuffle {__version__} is installed there, 9.9 here": {"version": "9.9"},
        "its preshuffle has another book": {"book": "sha256:0"},
        "out is another folder there: shared storage is needed": {"content": "other"},
        "is not there, or cannot be written: No such file": {"probe": str(tmp_path / "no" / ".unfinished" / "x")},
        "bytes there, 7 here": {"shards": ((str(shard), 7),)},
        "cannot be read there: No such file": {"shards": (("/no/shard", 7),)},
    }
    for message, change in wrong.items():
        (problem,) = check_node(right._replace(**change))[1]
        assert message in problem
    with pytest.raises(LaidOutError, match=rf"node {socket.gethostname()}: preshuffle .* is installed there"):
        unit_task.check_this_node(right._replace(version="9.9"))
    assert Registry.default().digest == right.book


def test_nodes_that_differ_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".unfinished").mkdir()
    expected = nodes.expectation(tmp_path, [])
    ray = FakeRay()
    answers: list[Any] = [("host-1", ("preshuffle 1 is installed there, 2 here",)), ("host-1", ())]
    monkeypatch.setattr(nodes, "_submit", lambda ray, node, expected: ray.put(answers.pop(0)))
    with pytest.raises(LaidOutError, match=r"node host-1 \(10.0.0.1\): preshuffle 1 is installed there, 2 here"):
        nodes.check_nodes(ray, expected)
    with pytest.raises(LaidOutError, match=r"node host-1 .*what it writes to .* is not found here"):
        nodes.check_nodes(ray, expected).finish()
    monkeypatch.setattr(FakeRay, "nodes", lambda self: [])
    with pytest.raises(LaidOutError, match="no node with a processor"):
        nodes.check_nodes(ray, expected)


def test_clusters_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "grpc" or None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connection.check_reachable(f"127.0.0.1:{port}")
        connection.check_reachable(f"ray://127.0.0.1:{port}")
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(LaidOutError, match=f"no Ray cluster at {address}: Connection refused"):
            connection.check_reachable(address)
    for address in ("nowhere", "http://127.0.0.1:1", "127.0.0.1:x", ":6379"):
        with pytest.raises(LaidOutError, match="valid: auto, HOST:PORT, ray://HOST:PORT"):
            connection.check_reachable(address)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LaidOutError, match=r'needs grpcio: pip install "ray\[client\]"'):
        connection.check_reachable(f"ray://127.0.0.1:{port}")
    with pytest.raises(LaidOutError, match=r'pip install "preshuffle\[ray\]"'):
        RayExecutor()


def test_what_ray_prints_is_not_among_results(capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    output = connection.OutputWithoutRay(sys.stdout)
    for name in ("MainThread", "ray_listen_error_messages"):
        thread = threading.Thread(target=lambda: print(threading.current_thread().name, file=output), name=name)
        thread.start()
        thread.join()
    assert capsys.readouterr() == ("MainThread\n", "ray_listen_error_messages\n")
    assert output.isatty() == sys.stdout.isatty()
    assert isinstance(output._output, io.TextIOBase)

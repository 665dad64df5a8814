"""Child processes: results, errors, priority, and an end when they are stopped or die."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from preshuffle.api.upkeep.worker_process import MAX_MEMORY, WorkerProcess, WorkerProcessError
from preshuffle.registry import Query, Registry
from support.processes.machine import is_running

QUERY = Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype="fp4x2", tp=2)


def recipe_of(registry: Registry, query: Query) -> tuple[int, str]:
    return os.getpid(), registry.resolve(query).model_dump_json()


def test_a_registry_decides_the_same_in_another_process() -> None:
    registry = Registry.default()
    pid, decided = WorkerProcess().run(recipe_of, registry, QUERY)
    assert pid != os.getpid()
    assert decided == registry.resolve(QUERY).model_dump_json()


def test_what_is_raised_there_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        WorkerProcess().run(divmod, 1, 0)


def test_a_process_that_dies_at_its_start_is_not_waited_for() -> None:
    from support.processes.dying_module import work  # whoever imports this file must not die of it

    found: list[object] = []

    def run() -> None:
        try:
            found.append(WorkerProcess().run(work, b"a" * 1_000_000))  # more than a pipe holds
        except WorkerProcessError as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout=120)
    assert [type(one) for one in found] == [WorkerProcessError]


def niceness() -> int:
    return os.nice(0)


def test_it_has_a_lower_priority_than_the_service() -> None:
    assert WorkerProcess().run(niceness) >= min(os.nice(0) + 10, 19)


def fill_memory(number: int) -> int:
    return len(bytearray(number))


def test_memory_that_it_may_not_take_is_an_end_without_a_result() -> None:
    worker = WorkerProcess()
    with pytest.raises(WorkerProcessError):
        worker.run(fill_memory, MAX_MEMORY)
    assert worker.run(fill_memory, MAX_MEMORY // 4) == MAX_MEMORY // 4


def test_it_is_killed_from_another_thread() -> None:
    worker, errors = WorkerProcess(), []

    def run() -> None:
        try:
            worker.run(time.sleep, 600)
        except WorkerProcessError as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while not worker.running:
        time.sleep(0.01)
    worker.stop()
    thread.join(timeout=60)
    assert len(errors) == 1
    assert not worker.running


PARENT = """
import re, time
from preshuffle.api.upkeep import WorkerProcess
from support.processes.endless import search
print(WorkerProcess().run(search), flush=True)
"""


def test_it_ends_when_the_service_is_killed(tmp_path: Path) -> None:
    """Even within a regular expression that never ends by itself."""
    pid = tmp_path / "pid"
    path = os.pathsep.join(p for p in sys.path if p)
    command = [sys.executable, "-c", PARENT]
    parent = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path, "ENDLESS_PID": str(pid)})
    deadline = time.monotonic() + 120
    while not (pid.exists() and pid.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while is_running(int(pid.read_text())):
        assert time.monotonic() < deadline, "the child process goes on"
        time.sleep(0.1)

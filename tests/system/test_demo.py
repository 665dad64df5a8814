"""The demonstration, as a user runs it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support.demo import assert_both_layouts_are_proven

ROOT = Path(__file__).parents[2]


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "demo.py", "--folder", str(folder), *arguments]
    env = {**os.environ, "COLUMNS": "120"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.slow  # tests/docs/test_readme.py runs the demo too, and holds its output to the same
def test_the_demo_proves_both_layouts(tmp_path: Path) -> None:
    done = demo(tmp_path, "--no-serve")
    assert done.returncode == 0, done.stderr
    assert_both_layouts_are_proven(done.stdout, tmp_path)


def test_a_taken_port_is_said_before_the_work(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = demo(tmp_path, "--port", str(port))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"demo: 127.0.0.1:{port} cannot be used")


def test_a_folder_that_cannot_be_made_is_one_message() -> None:
    done = demo(Path("/dev/null/x"), "--no-serve")
    assert done.returncode == 1
    assert done.stderr.startswith("demo: /dev/null/x/checkpoint: cannot be made")

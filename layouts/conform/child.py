"""Child processes for foreign code: bounded, with progress.

Nothing of an AITER or of an engine is imported in the process that asks.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from preshuffle.layouts.conform.errors import ConformError

Progress = Callable[[int], None]

MAX_ANSWERS: Final = 1 << 30
MAX_MEMORY: Final = 64 << 30
_KEPT: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
_POLL_S: Final = 0.05
_WORKERS: Final = "preshuffle.layouts.conform.standins"


def run_worker(
    worker: str,
    request: Mapping[str, Any],
    *,
    timeout_s: float,
    progress: Progress = lambda count: None,
    env: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Run a worker on a request and return its answers.

    It gets no secrets of this process's environment, a folder of its own, and limits on time, memory and files.

    Args:
        worker: module of ``preshuffle.layouts.conform.standins``.
        request: JSON values; ``answers`` is added.
        timeout_s: wall-clock seconds.
        progress: called with the number of answers so far.
        env: further environment variables.

    Raises:
        ConformError: it ended with an error, took too long, or answered something else than JSON.
    """
    with tempfile.TemporaryDirectory(prefix="preshuffle-conform-") as folder:
        asked, answers, errors = (Path(folder) / name for name in ("request.json", "answers.jsonl", "errors.txt"))
        asked.write_text(json.dumps({**request, "answers": str(answers)}), encoding="utf-8")
        answers.touch()
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {"HOME": folder, "TMPDIR": folder, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        environment |= env or {}
        with errors.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", f"{_WORKERS}.{worker}", str(asked)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                cwd=folder,
                env=environment,
                start_new_session=True,
                preexec_fn=lambda: _limit(timeout_s),
            )
            code = _wait(process, answers, timeout_s, progress)
        found = _read(answers, worker)
        if code != 0 and not found:
            raise ConformError(f"{worker} ended with code {code}: {_last_line(errors)}")
        if code != 0:
            found.append({"failed": f"ended with code {code}: {_last_line(errors)}"})
        return found


def _limit(timeout_s: float) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (int(timeout_s) + 60, int(timeout_s) + 90))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_ANSWERS, MAX_ANSWERS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not os.path.exists("/dev/kfd"):  # ROCm maps more address space than there is memory
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))


def _wait(process: subprocess.Popen[bytes], answers: Path, timeout_s: float, progress: Progress) -> int:
    end, size, count = time.monotonic() + timeout_s, 0, 0
    try:
        while process.poll() is None:
            if time.monotonic() > end:
                raise ConformError(f"no answer after {timeout_s:.0f} seconds; the child process was stopped")
            with answers.open("rb") as file:
                file.seek(size)
                more = file.read(1 << 20)
            size, count = size + len(more), count + more.count(b"\n")
            if more:
                progress(count)
            else:
                time.sleep(_POLL_S)
        return process.returncode
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _read(answers: Path, worker: str) -> list[dict[str, Any]]:
    found = []
    for line in answers.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            raise ConformError(f"{worker} answered something else than JSON: {line[:80]!r}") from None
        if not isinstance(value, dict):
            raise ConformError(f"{worker} answered something else than an object: {line[:80]!r}")
        found.append(value)
    return found


def _last_line(errors: Path) -> str:
    lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:400] if lines else "no message"

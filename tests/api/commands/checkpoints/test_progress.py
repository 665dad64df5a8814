"""Progress on a terminal, elsewhere, for programs, and without rich."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from preshuffle.api.commands.checkpoints import progress_bar
from preshuffle.api.commands.checkpoints.progress_bar import PlainLines, ProgressBar, duration, progress_listener
from preshuffle.layouts.laid_out import RunEvent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def event(kind: Any, done: int, eta: float | None = 5.0) -> RunEvent:
    return RunEvent(event=kind, done=done, total=10**10, seconds=5, rate=1e9, eta=eta)


def test_a_terminal_gets_a_bar_with_rate_and_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    listener = progress_listener(json=False)
    assert isinstance(listener, ProgressBar)
    assert terminal.getvalue() == ""  # nothing before the first event
    listener(event("fetching", 10**9, None))
    listener(event("started", 0, None))
    listener(event("advanced", 5 * 10**9))
    listener.clear()
    text = terminal.getvalue()
    for part in ("fetching", "writing", "5.0/10.0 GB", "1,000 MB/s, 0:05 left"):
        assert part in text
    listener.clear()


def test_the_bar_says_what_a_command_does(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    listener = progress_listener(json=False, work="checking")
    listener(event("advanced", 5 * 10**9))
    listener.clear()
    assert "checking" in terminal.getvalue()
    assert "writing" not in terminal.getvalue()


def test_other_streams_get_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listener = progress_listener(json=False)
    assert isinstance(listener, PlainLines)
    listener(event("advanced", 5 * 10**9))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress_bar, "_EVERY", 0.0)
    listener(event("advanced", 5 * 10**9))
    listener(event("fetching", 10**9, None))
    listener(event("finished", 10**10))
    assert capsys.readouterr().err.splitlines() == [
        "preshuffle: 5.0 of 10.0 GB, 50%, 1,000 MB/s, 0:05 left",
        "preshuffle: fetched 1.0 of 10.0 GB, 10%, 1,000 MB/s",
    ]


def test_without_rich_a_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    for name in ("rich", "rich.console", "rich.progress"):
        monkeypatch.setitem(sys.modules, name, None)
    assert isinstance(progress_listener(json=False), PlainLines)


def test_programs_get_documents(capsys: pytest.CaptureFixture[str]) -> None:
    listener = progress_listener(json=True)
    listener(event("file", 1))
    listener.clear()
    assert json.loads(capsys.readouterr().out) == {
        "event": "file", "done": 1, "total": 10**10, "seconds": 5.0, "rate": 1e9, "eta": 5.0
    }  # fmt: skip


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0, 59.6, 61, 3_723)] == ["0:00", "1:00", "1:01", "1:02:03"]

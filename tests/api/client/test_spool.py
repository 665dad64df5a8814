"""Spool: bounded, atomic, owned by one process; damaged files are skipped and counted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from preshuffle.api.client.spool import Spool

ROOM = 1000


def spool(folder: Path | None, max_bytes: int = ROOM, max_entries: int = 10) -> Spool:
    opened = Spool(folder, "prod", max_bytes=max_bytes, max_entries=max_entries)
    opened.attach()
    return opened


def contents(opened: Spool) -> list[tuple[int, bytes | None]]:
    return [(report.replica, opened.read(report.replica)) for report in opened]


@pytest.mark.parametrize("on_disk", [True, False])
def test_the_oldest_comes_first_and_a_newer_one_replaces_the_replicas(on_disk: bool, tmp_path: Path) -> None:
    opened = spool(tmp_path / "spool" if on_disk else None)
    for replica, body in ((3, b"a"), (1, b"bb"), (3, b"ccc")):
        assert opened.put(replica, body) == ()
    assert contents(opened) == [(1, b"bb"), (3, b"ccc")]
    assert (len(opened), opened.size, 3 in opened, 2 in opened) == (2, 5, True, False)
    opened.remove(1)
    opened.remove(1)
    assert contents(opened) == [(3, b"ccc")]


def test_what_waits_outlives_the_process_in_its_order(tmp_path: Path) -> None:
    first = spool(tmp_path)
    for replica in (5, 2, 9):
        first.put(replica, b"%d" % replica)
    first.close()
    second = spool(tmp_path)
    assert contents(second) == [(5, b"5"), (2, b"2"), (9, b"9")]
    second.put(2, b"new")
    second.close()
    assert contents(spool(tmp_path)) == [(5, b"5"), (9, b"9"), (2, b"new")]


@pytest.mark.parametrize(("max_bytes", "max_entries"), [(ROOM, 3), (30, 10)])
def test_the_oldest_are_given_up_where_there_are_too_many(max_bytes: int, max_entries: int, tmp_path: Path) -> None:
    opened = spool(tmp_path, max_bytes, max_entries)
    given_up = [replica for number in range(8) for replica in opened.put(number, b"0123456789")]
    assert given_up == [0, 1, 2, 3, 4]
    assert [report.replica for report in opened] == [5, 6, 7]
    assert opened.dropped == 5
    assert sorted(path.name for path in tmp_path.glob("*.report")) == ["5.report", "6.report", "7.report"]


def test_the_newest_report_is_kept_however_large(tmp_path: Path) -> None:
    opened = spool(tmp_path, max_bytes=10)
    opened.put(0, b"x")
    assert opened.put(1, b"y" * 50) == (0,)
    assert contents(opened) == [(1, b"y" * 50)]
    assert list(tmp_path.glob("*.report")) == []  # no file exceeds the limit


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:-1],
    "longer": lambda data: data + b"x",
    "changed": lambda data: data[:-2] + bytes([data[-2] ^ 1]) + data[-1:],
    "no head": lambda data: data.partition(b"\n")[2],
    "empty": lambda data: b"",
    "binary": lambda data: b"\xff\xfe\n\x00",
    "list": lambda data: b"[]\n",
    "other deployment": lambda data: data.replace(b'"prod"', b'"test"'),
    "sequence": lambda data: data.replace(b'"sequence": 2', b'"sequence": 9'),
    "deep": lambda data: b"[" * 900 + b"\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_skipped_counted_and_deleted(damage: str, tmp_path: Path) -> None:
    first = spool(tmp_path)
    for replica in range(3):
        first.put(replica, b"report %d" % replica)
    first.close()
    file = tmp_path / "1.report"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    second = spool(tmp_path)
    assert contents(second) == [(0, b"report 0"), (2, b"report 2")]
    assert second.corrupted == 1
    second.close()
    assert spool(tmp_path).corrupted == 0


def test_a_file_that_is_damaged_while_it_waits_is_skipped(tmp_path: Path) -> None:
    opened = spool(tmp_path)
    opened.put(0, b"report")
    (tmp_path / "0.report").write_bytes(b"")
    assert contents(opened) == [(0, None)]
    assert (len(opened), opened.size, opened.corrupted) == (0, 0, 1)


def test_a_pipe_in_a_reports_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.report")
    assert contents(spool(tmp_path)) == []
    assert not list(tmp_path.glob("*.report"))


def test_other_files_are_left_alone_and_halves_removed(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("notes.txt", "01.report", "x.report", "123456.report", "-1.report")]
    for file in (*kept, tmp_path / "4.part"):
        file.write_text("?")
    (tmp_path / "7.report").symlink_to(kept[0])
    opened = spool(tmp_path)
    assert (contents(opened), opened.corrupted) == ([], 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["lock", *(path.name for path in kept)])


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = spool(tmp_path), spool(tmp_path)
    first.put(0, b"old")
    first.put(1, b"other")
    second.put(0, b"new")
    assert not second.attached
    assert not second.attach()
    assert caplog.text.count("another process uses it") == 1
    assert contents(second) == [(0, b"new")]
    first.close()
    assert second.attach()
    assert contents(second) == [(1, b"other"), (0, b"new")]
    second.close()
    assert contents(spool(tmp_path)) == [(1, b"other"), (0, b"new")]


def test_a_folder_that_cannot_be_used_leaves_reports_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    opened = spool(tmp_path / "file" / "spool")
    opened.put(0, b"report")
    assert contents(opened) == [(0, b"report")]
    assert "cannot be used: Not a directory" in caplog.text


def test_a_disk_that_cannot_be_written_leaves_reports_in_memory(tmp_path: Path) -> None:
    opened = spool(tmp_path)
    (tmp_path / "0.part").mkdir()  # what would be written first
    opened.put(0, b"report")
    assert (contents(opened), opened.in_memory) == ([(0, b"report")], 1)
    (tmp_path / "0.part").rmdir()
    opened.put(0, b"again")
    assert (contents(opened), opened.in_memory) == ([(0, b"again")], 1)
    assert len(list(tmp_path.glob("*.report"))) == 1


def test_files_are_the_users_own(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        opened = spool(tmp_path / "spool")
        opened.put(0, b"report")
    finally:
        os.umask(previous)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "spool").iterdir()}
    assert modes == {"lock": 0o600, "0.report": 0o600}
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700

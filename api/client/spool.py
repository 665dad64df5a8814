"""Bounded spool of reports that wait for the service.

There is one file per replica. A file is one line of JSON (deployment, sequence, SHA-256) and then the report. It is
written beside its place and moved there, so that it is whole or not there. One process at a time owns a folder, by a
lock that ends with the process. Without a folder, or while another process owns it, reports wait in memory.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

log = logging.getLogger("preshuffle.client")

_NAME: Final = re.compile(r"(0|[1-9][0-9]{0,4})\.report")
_LOCK: Final = "lock"
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""A pipe in a report's place would be waited for."""
_HEAD: Final = 512
"""Bytes of the first line, at most."""


@dataclass(frozen=True, slots=True)
class SpooledReport:
    """Report that waits.

    Attributes:
        replica: number of the replica.
        sequence: rises with time.
        size: of the report, in bytes.
        body: the report; None where the file holds it.
    """

    replica: int
    sequence: int
    size: int
    body: bytes | None = None


class Spool:
    """Reports that wait, the oldest first, at most one per replica.

    Not thread-safe: the thread that delivers owns it.

    Attributes:
        corrupted: files that were skipped because they are damaged.
        dropped: reports that were given up because there were too many.
        in_memory: reports that could not be written to the folder.
    """

    def __init__(self, folder: Path | None, deployment: str, *, max_bytes: int, max_entries: int) -> None:
        """Use a folder, which ``attach`` opens."""
        self._folder, self._deployment = folder, deployment
        self._max_bytes, self._max_entries = max_bytes, max_entries
        self._reports: OrderedDict[int, SpooledReport] = OrderedDict()
        self._bytes, self._sequence = 0, 0
        self._lock: int | None = None
        self._warned = False
        self.corrupted = self.dropped = self.in_memory = 0

    def __len__(self) -> int:
        """Return the number of reports."""
        return len(self._reports)

    def __contains__(self, replica: object) -> bool:
        """Whether a report of this replica waits."""
        return replica in self._reports

    def __iter__(self) -> Iterator[SpooledReport]:
        """Yield the reports, the oldest first."""
        return iter(tuple(self._reports.values()))

    @property
    def size(self) -> int:
        """Bytes of all reports."""
        return self._bytes

    @property
    def attached(self) -> bool:
        """Whether nothing is left for ``attach`` to do."""
        return self._folder is None or self._lock is not None

    def attach(self) -> bool:
        """Lock the folder and load its reports; return whether it worked.

        What waits in memory is newer, and is written to the folder.
        """
        if self._folder is None or self._lock is not None:
            return True
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _locked(self._folder / _LOCK)
            stored = self._stored(self._folder)
        except OSError as error:
            self.close()
            self._warn(self._folder, error)
            return False
        waiting, self._reports, self._bytes = self._reports, OrderedDict(), 0
        for report in stored:
            self._add(report)
        for report in waiting.values():
            self.put(report.replica, report.body or b"")
        return True

    def close(self) -> None:
        """Release the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def put(self, replica: int, body: bytes) -> tuple[int, ...]:
        """Add a report, in place of the replica's last one.

        Returns:
            Replicas whose reports were given up for it, as there were too many.
        """
        self.remove(replica)
        self._sequence += 1
        report = SpooledReport(replica, self._sequence, len(body), body)
        self._add(report)
        given_up = []
        while len(self._reports) > 1 and (len(self._reports) > self._max_entries or self._bytes > self._max_bytes):
            oldest = next(iter(self._reports))
            self.remove(oldest)
            self.dropped += 1
            given_up.append(oldest)
        self._write(report)
        return tuple(given_up)

    def read(self, replica: int) -> bytes | None:
        """Return a report; None if its file is damaged, and removed."""
        report = self._reports[replica]
        if report.body is not None:
            return report.body
        found = self._parsed(self._path(replica), replica)
        if found is None:
            self.remove(replica)
            return None
        return found[1]

    def remove(self, replica: int) -> None:
        """Remove a replica's report, if there is one."""
        report = self._reports.pop(replica, None)
        if report is None:
            return
        self._bytes -= report.size
        if report.body is None:
            with suppress(OSError):
                self._path(replica).unlink()

    def _path(self, replica: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{replica}.report"

    def _add(self, report: SpooledReport) -> None:
        self._reports[report.replica] = report
        self._bytes += report.size
        self._sequence = max(self._sequence, report.sequence)

    def _write(self, report: SpooledReport) -> None:
        """Move a report from memory to its file; leave it in memory where that is impossible."""
        if self._lock is None or report.size > self._max_bytes or report.body is None:
            return
        path = self._path(report.replica)
        beside = path.with_suffix(".part")
        try:
            with beside.open("wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(self._head(report.sequence, report.body) + report.body)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            self._warn(path, error)
            self.in_memory += 1
            with suppress(OSError):
                beside.unlink()
            return
        self._reports[report.replica] = replace(report, body=None)

    def _warn(self, path: Path, error: OSError) -> None:
        why = "another process uses it" if isinstance(error, BlockingIOError) else error.strerror
        if not self._warned:
            log.warning("reports wait in memory: %s cannot be used: %s", path, why)
        self._warned = True

    def _head(self, sequence: int, body: bytes) -> bytes:
        digest = hashlib.sha256(b"%d\n" % sequence + body).hexdigest()
        head = {"preshuffle_report": 1, "deployment": self._deployment, "sequence": sequence, "sha256": digest}
        return json.dumps(head).encode() + b"\n"

    def _stored(self, folder: Path) -> list[SpooledReport]:
        """Return the reports of a folder, the oldest first; delete the damaged ones."""
        found = []
        for path in folder.iterdir():
            if path.suffix == ".part":
                with suppress(OSError):
                    path.unlink()
            name = _NAME.fullmatch(path.name)
            if name is None:
                continue
            read = self._parsed(path, int(name[1]))
            if read is not None:
                found.append(SpooledReport(int(name[1]), read[0], len(read[1])))
        return sorted(found, key=lambda report: report.sequence)

    def _parsed(self, path: Path, replica: int) -> tuple[int, bytes] | None:
        """Return the sequence and the report in a file; delete a damaged file and return None."""
        try:
            with os.fdopen(os.open(path, _READ), "rb") as file:
                data = file.read(self._max_bytes + _HEAD + 1)
            first, _, body = data.partition(b"\n")
            head: Any = json.loads(first[:_HEAD])
            sequence = head["sequence"]
            if isinstance(sequence, int) and sequence > 0 and first + b"\n" == self._head(sequence, body):
                return sequence, body
        except (OSError, ValueError, TypeError, KeyError):
            pass
        self.corrupted += 1
        log.warning("the waiting report %s of replica %d is damaged; it is skipped", path, replica)
        with suppress(OSError):
            path.unlink()
        return None


def _locked(path: Path) -> int:
    """Return a descriptor that holds the lock of a file.

    Raises:
        OSError: another process holds it, or the file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor

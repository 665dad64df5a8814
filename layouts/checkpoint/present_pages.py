"""Pages of mapped files: present while they are read, then given back.

A file that was cut short since is an error then, not the end of the process; and a process does not grow by what it
has read.
"""

from __future__ import annotations

import errno
import mmap
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Final

from preshuffle.layouts.checkpoint.page_advice import advise
from preshuffle.layouts.checkpoint.part import CheckpointError

_POPULATE_READ: Final = 22
"""Linux's ``MADV_POPULATE_READ``, since 5.14."""
_PAGE: Final = mmap.PAGESIZE
_KEPT: Final = 256 << 20
"""Bytes of pages that stay for the next reader."""
_AROUND: Final = 2 << 20
"""Bytes beside a page that Linux may map with it, one of its large pages: given back, too, or a long run grows."""
Extent = tuple[int, int]


@dataclass(frozen=True, slots=True)
class PageRange:
    """Pages of a mapping.

    Attributes:
        begin: first byte, of a page.
        end: past the last byte.
        shared: whether readers take parts of it: others are likely to come for the rest.
    """

    mapped: mmap.mmap
    begin: int
    end: int
    shared: bool

    @staticmethod
    def of(mapped: mmap.mmap, begin: int, end: int, shared: bool) -> PageRange:
        """Return the pages that hold some bytes."""
        return PageRange(mapped, begin // _PAGE * _PAGE, end, shared)

    @property
    def nbytes(self) -> int:
        """How many bytes there are."""
        return self.end - self.begin


class PresentPages:
    """Ranges that are present, by reader; for several threads.

    The kernel takes as long to map a page as to copy it. So rows of which each rank takes some columns are mapped once:
    their pages stay until others push them out.
    """

    def __init__(self) -> None:
        """Hold nothing."""
        self._lock = Lock()
        self._readers: Counter[PageRange] = Counter()
        self._ready: set[PageRange] = set()
        self._idle: OrderedDict[PageRange, None] = OrderedDict()
        self._idle_bytes = 0

    def acquire(self, pages: PageRange) -> None:
        """Make pages present for a reader.

        Raises:
            CheckpointError: they are not in the file any more, or cannot be read.
        """
        with self._lock:
            self._readers[pages] += 1
            if pages in self._idle:
                del self._idle[pages]
                self._idle_bytes -= pages.nbytes
            ready = pages in self._ready
        try:
            if not ready:
                _populate(pages)
            elif pages.mapped.size() < pages.end:
                raise CheckpointError("cut short or unreadable: the file ends before")
        except BaseException:
            self.release([pages])
            raise
        with self._lock:
            self._ready.add(pages)

    def release(self, ranges: Iterable[PageRange]) -> None:
        """Let a reader's pages go, now or when others need room."""
        dropped: list[PageRange] = []
        with self._lock:
            for pages in ranges:
                self._readers[pages] -= 1
                if not self._readers[pages]:
                    del self._readers[pages]
                    dropped += self._dropped(pages)
            self._ready.difference_update(dropped)
            unread = self._unread(dropped)
        for mapped, begin, end in unread:
            with suppress(OSError):
                advise(mapped, mmap.MADV_DONTNEED, begin, end)

    def forget(self, mapped: mmap.mmap) -> None:
        """Forget a mapping that nobody reads."""
        with self._lock:
            for pages in [pages for pages in self._idle if pages.mapped is mapped]:
                del self._idle[pages]
                self._idle_bytes -= pages.nbytes
                self._ready.discard(pages)

    def _dropped(self, pages: PageRange) -> list[PageRange]:
        """Return what goes now that a range has no reader."""
        if not pages.shared:
            return [pages]
        self._idle[pages] = None
        self._idle_bytes += pages.nbytes
        dropped: list[PageRange] = []
        while self._idle_bytes > _KEPT:
            oldest, _ = self._idle.popitem(last=False)
            self._idle_bytes -= oldest.nbytes
            dropped.append(oldest)
        return dropped

    def _unread(self, dropped: Iterable[PageRange]) -> list[tuple[mmap.mmap, int, int]]:
        """Return dropped bytes, and those around them, but for what is being read."""
        read = _by_mapping(self._readers)
        return [
            (mapped, begin, end)
            for mapped, ranges in _by_mapping(dropped).items()
            for begin, end in _without(ranges, read.get(mapped, ()), len(mapped))
        ]


def _by_mapping(ranges: Iterable[PageRange]) -> dict[mmap.mmap, list[Extent]]:
    found: dict[mmap.mmap, list[Extent]] = {}
    for pages in ranges:
        found.setdefault(pages.mapped, []).append((pages.begin, -(-pages.end // _PAGE) * _PAGE))
    return {mapped: sorted(extents) for mapped, extents in found.items()}


def _without(dropped: Iterable[Extent], read: Iterable[Extent], size: int) -> Iterator[Extent]:
    """Yield dropped pages of a file, and those around them, but for what is being read.

    Args:
        dropped: first byte, and past the last one, in order.
        read: the same.
        size: of the file.
    """
    left = deque(read)
    place = 0
    for first, last in dropped:
        place, end = max(place, first - _AROUND), min(last + _AROUND, size)
        while place < end:
            while left and left[0][1] <= place:
                left.popleft()
            free = min(left[0][0], end) if left else end
            if place < free:
                yield place, free
            place = free if free == end else max(place, left[0][1])


def _populate(pages: PageRange) -> None:
    try:
        advise(pages.mapped, _POPULATE_READ, pages.begin, pages.end)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):  # an older kernel
            raise CheckpointError(f"cut short or unreadable: {error.strerror}") from None

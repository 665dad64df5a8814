"""Advice to the kernel on the pages of mapped files."""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import suppress
from typing import Final

import torch


def advise(mapped: mmap.mmap, advice: int, begin: int, end: int) -> None:
    """Advise on a byte range that begins at a page.

    Other threads run meanwhile: ``mmap.madvise`` holds the interpreter's lock, for as long as a disk takes to read the
    pages.

    Raises:
        OSError: the kernel refuses, or the pages are not in the file.
    """
    address = torch.frombuffer(mapped, dtype=torch.uint8, count=1).data_ptr()
    if _MADVISE(address + begin, end - begin, advice):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def read_ahead(descriptor: int, size: int) -> None:
    """Have the system read a file from its disk; wait for nothing.

    The advice costs a look at each page. It is saved where some pages, spread over the file, are all in memory.
    """
    try:
        for place in range(0, size, max(size // _PROBES, 1)):
            os.preadv(descriptor, [bytearray(1)], place, os.RWF_NOWAIT)
    except OSError:  # one is not, or the file system cannot tell
        with suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)


_PROBES: Final = 8
_MADVISE: Final = ctypes.CDLL(None, use_errno=True).madvise
_MADVISE.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

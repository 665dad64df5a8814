"""Fingerprints of bytes in memory, and digests of every byte.

A *fingerprint* is taken by ``apply`` and compared at every look. It reads all bytes of up to 1 MiB, and of more one
word of eight bytes in each of 2,048 equal parts (32,768 on a GPU), so that every run of bytes as long as two such parts
is seen: 1/1,024 of a tensor (1/16,384). On a CPU each word costs a page's address, up to a microsecond; reading
all bytes would cost a fifth of ``apply`` there, a third on a GPU.

A *digest* reads every byte. It is taken where they are all read or written anyway: in the metadata of a file, beside a
mapped file, and with a copy.
"""

from __future__ import annotations

import mmap
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import torch

from preshuffle.layouts.stamps.gpu_sums import can_sum, sum_parts

Span = tuple[torch.UntypedStorage, int, int]
_WORD: Final = 8
_ALL: Final = 1 << 20
"""Up to so many bytes a fingerprint reads all of them."""
_PART_WORDS: Final = 64
"""Words of a part of such a fingerprint."""
_PARTS: Final = 512
"""Parts of a fingerprint of more bytes."""
_CPU_SAMPLES, _GPU_SAMPLES = 4, 64
"""Words that are read of each of those parts."""
_ROW_WORDS: Final = 4096
"""Words of a row of a digest, each row with a sum of its own."""
_CPU_BLOCK, _GPU_BLOCK = 7 * _ROW_WORDS * _WORD, 1 << 26
"""Bytes that are multiplied at once: what a core's cache takes, and torch gives to no second thread (32,768 words are
its limit): waiting for one takes milliseconds on a busy machine. And what occupies a GPU."""
_DIGEST_BLOCK: Final = 32 * _ROW_WORDS * _WORD
"""Bytes that a digest takes at once on a CPU: what its caches take, and few enough steps of Python."""
_PREFIX: Final = "sum64:"
DIGEST: Final = rf"^{_PREFIX}[0-9a-f]{{32}}$"
"""Pattern of a digest's text."""


def fingerprint(storage: torch.UntypedStorage, begin: int, nbytes: int) -> torch.Tensor:
    """Return a sum of each part of a storage's bytes.

    Flat int64, on its device. A GPU is not waited for.

    Args:
        storage: memory, all of it there.
        begin: of the bytes, counted from the storage's first.
        nbytes: how many there are.
    """
    return fingerprints([(storage, begin, nbytes)])[0]


def fingerprints(spans: Sequence[Span]) -> list[torch.Tensor]:
    """Return the fingerprint of each of several spans.

    Up to eight of one GPU take one launch.

    Args:
        spans: storage, first byte and number of bytes of each.
    """
    on_gpu: dict[torch.device, list[tuple[int, int, int]]] = defaultdict(list)
    found: dict[int, torch.Tensor] = {}
    for number, (storage, begin, nbytes) in enumerate(spans):
        address = storage.data_ptr() + begin
        if can_sum(storage.device, address, nbytes):
            on_gpu[storage.device].append((number, address, nbytes))
        else:
            found[number] = _sums(_words(storage, begin, nbytes))
    for device, some in on_gpu.items():
        summed = sum_parts(device, [(address, nbytes) for _, address, nbytes in some])
        found |= {number: sums for (number, _, _), sums in zip(some, summed, strict=True)}
    return [found[number] for number in range(len(spans))]


def fingerprint_of_file(path: Path, extent: tuple[int, int]) -> torch.Tensor:
    """Return the fingerprint of a byte range of a file.

    That of the same bytes in memory.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is shorter.
    """
    begin, end = extent
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        shown = torch.frombuffer(mapped, dtype=torch.uint8, count=end - begin, offset=begin)
        found = fingerprint(shown.untyped_storage(), 0, end - begin)
        del shown  # else the mapping cannot be closed
    return found


def part_edges(nbytes: int) -> torch.Tensor:
    """Return the edges of a fingerprint's parts.

    Where each begins, and where the last one ends.
    """
    if nbytes <= _ALL:
        return (torch.arange(-(-nbytes // (_PART_WORDS * _WORD)) + 1, device="cpu") * _PART_WORDS * _WORD).clamp(
            max=nbytes
        )
    return torch.arange(_PARTS + 1, device="cpu") * (nbytes // _WORD) // _PARTS * _WORD


def is_uniform(storage: torch.UntypedStorage, begin: int, nbytes: int) -> bool:
    """Return whether all bytes that a fingerprint reads are the same."""
    flat = _flat(storage, begin, nbytes)
    seen = flat if nbytes <= _ALL else _words(storage, begin, nbytes).view(-1).view(torch.uint8)
    return bool((seen == seen[:1]).all())


def digest_memory(storage: torch.UntypedStorage, begin: int, nbytes: int) -> str:
    """Return the digest of all bytes of a range.

    A GPU is waited for.
    """
    block = _DIGEST_BLOCK if storage.device.type == "cpu" else _GPU_BLOCK
    return _digest(_flat(storage, begin, nbytes).split(block) if nbytes else ())


def digest_file(path: Path, extent: tuple[int, int]) -> str:
    """Return the digest of a byte range of a file.

    Where the file ends inside the range, of the bytes that are there: their number is part of it.
    """
    return _digest(_blocks_of(path, extent))


def row_sums_of_file(path: Path, extent: tuple[int, int]) -> bytes:
    """Return the sums of a byte range's rows, for a digest.

    Args:
        path: the file.
        extent: first byte, which begins a row, and past the last byte.
    """
    return b"".join(_row_sums(block) for block in _blocks_of(path, extent))


def digest_of_sums(sums: Iterable[bytes], nbytes: int) -> str:
    """Return the digest of consecutive pieces.

    Args:
        sums: of each piece's rows, in order.
        nbytes: of all pieces.
    """
    found = blake2b(digest_size=16)
    for some in sums:
        found.update(some)
    return _ended(found, nbytes)


def pieces_of(nbytes: int, largest: int) -> list[tuple[int, int]]:
    """Return about equal byte ranges of whole rows, for ``row_sums_of_file``.

    Args:
        nbytes: of all.
        largest: bytes of a piece at most; at least a row.
    """
    row = _ROW_WORDS * _WORD
    rows = -(-nbytes // row)
    count = -(-rows // max(1, largest // row))
    edges = [min(nbytes, number * rows // max(count, 1) * row) for number in range(count + 1)]
    return list(pairwise(edges)) if count else [(0, 0)]


def _blocks_of(path: Path, extent: tuple[int, int]) -> Iterator[torch.Tensor]:
    """Yield a file's blocks, all in the same memory, which stays in a core's cache."""
    place, end = extent
    handle = os.open(path, os.O_RDONLY)
    memory = torch.empty(min(_DIGEST_BLOCK, max(end - place, 0)), dtype=torch.uint8, device="cpu")
    try:
        while place < end:
            block = memory[: end - place]
            count, view = 0, memoryview(block.numpy().data)
            while count < len(view) and (read := os.preadv(handle, [view[count:]], place + count)):
                count += read
            yield block[:count]
            if count < len(view):  # the file ends here
                return
            place += count
    finally:
        os.close(handle)


def _digest(blocks: Iterable[torch.Tensor]) -> str:
    """Return the digest of consecutive blocks.

    All but the last one are of whole rows.
    """
    found, nbytes = blake2b(digest_size=16), 0
    for block in blocks:
        found.update(_row_sums(block))
        nbytes += block.numel()
    return _ended(found, nbytes)


def _ended(found: blake2b, nbytes: int) -> str:
    found.update(nbytes.to_bytes(8, "little"))
    return _PREFIX + found.hexdigest()


def _sums(words: torch.Tensor) -> torch.Tensor:
    """Return a weighted sum of each row of words."""
    weights = _weights(words.shape[1], words.device)
    rows = _block(words.device) // (words.shape[1] * _WORD)
    if len(words) <= rows:
        return (words * weights).sum(1)
    return torch.cat([(some * weights).sum(1) for some in words.split(rows)])


def _row_sums(block: torch.Tensor) -> bytes:
    """Return the weighted sum of each of a digest's rows.

    On a CPU numpy multiplies and adds in one pass, without memory for the products. It sees the words by DLPack:
    ``Tensor.numpy`` would forbid the storage to be resized, for good.
    """
    words = _padded(block, _ROW_WORDS)
    if words.device.type != "cpu":
        return _sums(words).cpu().numpy().tobytes()
    weights = _weights(_ROW_WORDS, words.device).numpy()
    return bytes(np.einsum("ij,j->i", np.from_dlpack(words), weights).tobytes())


def _block(device: torch.device) -> int:
    return _CPU_BLOCK if device.type == "cpu" else _GPU_BLOCK


def _flat(storage: torch.UntypedStorage, begin: int, nbytes: int) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage, begin, (nbytes,), (1,))


def _words(storage: torch.UntypedStorage, begin: int, nbytes: int) -> torch.Tensor:
    """Return the words that a fingerprint reads, ``[parts, words of a part]``."""
    flat = _flat(storage, begin, nbytes)
    if nbytes <= _ALL:
        return _padded(flat, _PART_WORDS)
    places = _places(nbytes, storage.device)
    if flat.data_ptr() % _WORD == 0 and begin % _WORD == 0:
        words = flat[: nbytes // _WORD * _WORD].view(torch.int64)[places]
    else:
        bytes_of_words = places.unsqueeze(1) * _WORD + torch.arange(_WORD, device=storage.device)
        words = flat[bytes_of_words.view(-1)].view(torch.int64)
    return words.view(_PARTS, -1)


def _padded(flat: torch.Tensor, width: int) -> torch.Tensor:
    """Return bytes as words ``[rows, width]``, the last row filled with zeros."""
    whole = flat.numel() % (width * _WORD) == 0
    if whole and flat.data_ptr() % _WORD == 0 and flat.storage_offset() % _WORD == 0:
        return flat.view(torch.int64).view(-1, width)
    rows = -(-flat.numel() // (width * _WORD))
    padded = torch.zeros(rows * width * _WORD, dtype=torch.uint8, device=flat.device)
    padded[: flat.numel()] = flat
    return padded.view(torch.int64).view(-1, width)


# Process-wide: pure functions of sizes that every layer repeats.
@lru_cache(maxsize=256)
def _places(nbytes: int, device: torch.device) -> torch.Tensor:
    """Return the number of one word in each of many equal parts.

    The places inside the parts are irregular: a layout leaves some bytes where they were, at regular distances.
    """
    count = _PARTS * (_CPU_SAMPLES if device.type == "cpu" else _GPU_SAMPLES)
    with torch.inference_mode(False):
        edges = torch.arange(count + 1, device="cpu") * (nbytes // _WORD) // count
        return (edges[:-1] + (_mixed(count, nbytes) & 2**31 - 1) % edges.diff()).to(device)


@lru_cache(maxsize=64)
def _weights(count: int, device: torch.device) -> torch.Tensor:
    """Return odd numbers: sums weighted with them show that words were exchanged."""
    with torch.inference_mode(False):
        return (_mixed(count, 0) | 1).to(device)


def _mixed(count: int, seed: int) -> torch.Tensor:
    """Return irregular int64 numbers, the same in every process (splitmix64)."""
    mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return torch.from_numpy((mixed ^ (mixed >> np.uint64(31))).view(np.int64))


class StreamDigest:
    """Digest of bytes that come in pieces: that of ``digest_memory``."""

    def __init__(self) -> None:
        """Begin with no bytes."""
        self._found = blake2b(digest_size=16)
        self._rest = torch.empty(0, dtype=torch.uint8)
        self._nbytes = 0

    def update(self, data: torch.Tensor) -> None:
        """Add flat uint8 bytes, of any number."""
        self._nbytes += data.numel()
        row = _ROW_WORDS * _WORD
        if self._rest.numel():
            missing = row - self._rest.numel()
            self._rest, data = torch.cat([self._rest, data[:missing]]), data[missing:]
            if self._rest.numel() < row:
                return
            self._add(self._rest)
        whole = data.numel() // row * row
        if whole:
            self._add(data[:whole])
        self._rest = data[whole:].clone()

    def text(self) -> str:
        """Return the digest; nothing may be added afterwards."""
        if self._rest.numel():
            self._add(self._rest)
        return _ended(self._found, self._nbytes)

    def _add(self, block: torch.Tensor) -> None:
        self._found.update(_row_sums(block))

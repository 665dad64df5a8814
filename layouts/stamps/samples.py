"""Samples of bytes in memory and in files, spread irregularly.

A sample shows that bytes were replaced, not that every single one is the same: of more than 4 KiB it reads 512 words
of eight bytes, one in each of 512 equal parts, so that a change of fewer bytes than two such parts may pass unseen.
The places inside the parts are irregular: a layout leaves some bytes where they were, at regular distances.
"""

from __future__ import annotations

import os
from functools import lru_cache
from hashlib import blake2b
from itertools import repeat
from pathlib import Path
from typing import Final

import torch

_WORD: Final = 8
_SAMPLES: Final = 512
_ALL: Final = _SAMPLES * _WORD
"""Up to so many bytes are read as a whole."""


# Process-wide: a pure function of a size that every layer repeats.
@lru_cache(maxsize=1024)
def sample_words(nbytes: int) -> tuple[int, ...]:
    """Return the numbers of the words that a sample reads.

    Words of eight bytes, one of each of 512 equal parts, in order; the same in every process.
    """
    words, state, found = nbytes // _WORD, nbytes, []
    for number in range(_SAMPLES):
        begin, end = number * words // _SAMPLES, (number + 1) * words // _SAMPLES
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        found.append(begin + (state >> 33) % (end - begin))
    return tuple(found)


def sampled_extents(nbytes: int) -> list[tuple[int, int]]:
    """Return the byte ranges that a sample of so many bytes reads."""
    if nbytes <= _ALL:
        return [(0, nbytes)]
    return [(word * _WORD, (word + 1) * _WORD) for word in sample_words(nbytes)]


def sample_memory(storage: torch.UntypedStorage, begin: int, nbytes: int) -> torch.Tensor:
    """Return a sample of a storage's bytes, on its device.

    Flat uint8. A GPU is not waited for.

    Args:
        storage: memory, all of it there.
        begin: of the bytes, counted from the storage's first.
        nbytes: how many there are.
    """
    flat = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage, begin, (nbytes,), (1,))
    if nbytes <= _ALL:
        return flat.clone()
    places = _places(nbytes, storage.device)
    if begin % _WORD == 0 and storage.data_ptr() % _WORD == 0:
        return flat[: nbytes // _WORD * _WORD].view(torch.int64)[places].view(torch.uint8)
    offsets = places.unsqueeze(1) * _WORD + torch.arange(_WORD, device=storage.device)
    return flat[offsets.view(-1)]


def sample_file(path: Path, extent: tuple[int, int]) -> bytes:
    """Return a sample of a byte range of a file."""
    begin, end = extent
    handle = os.open(path, os.O_RDONLY)
    try:
        if end - begin <= _ALL:
            return os.pread(handle, end - begin, begin)
        places = [begin + word * _WORD for word in sample_words(end - begin)]
        return b"".join(map(os.pread, repeat(handle), repeat(_WORD), places))
    finally:
        os.close(handle)


def digest_of(sample: torch.Tensor | bytes) -> str:
    """Return the digest of a sample, wherever it was read."""
    data = sample if isinstance(sample, bytes) else sample.cpu().numpy().tobytes()
    return blake2b(data, digest_size=16).hexdigest()


# Process-wide: a pure function of a size that every layer repeats.
@lru_cache(maxsize=1024)
def _places(nbytes: int, device: torch.device) -> torch.Tensor:
    with torch.inference_mode(False):
        return torch.tensor(sample_words(nbytes), device=device)

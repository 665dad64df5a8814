"""Source of bytes that joins several tensors of a checkpoint.

As a layer joins every expert's tensors; only what is read is mapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from preshuffle.layouts.forensics.source import Bytes, SourceError, TensorFile


class JoinedTensors(Bytes):
    """Tensors of one shape behind each other.

    Every expert's rows, gate's before up's.
    """

    def __init__(self, name: str, places: Sequence[tuple[Path, str]], experts: int) -> None:
        """Open the first tensor of a list of files and names.

        ``len(places) / experts`` of them belong to each expert.

        Raises:
            SourceError: a tensor is not there, or not of the others' shape and dtype.
        """
        self._places = places
        self._files: dict[Path, TensorFile] = {}
        self._parts: dict[int, Bytes] = {}
        first = self._part(0)
        rows, *rest = first.shape or (1,)
        shape = (experts, rows * len(places) // experts, *rest)
        super().__init__(name, torch.empty(0, dtype=torch.uint8), shape, first.dtype, offset=None)
        self._size = first.nbytes
        self.nbytes = self._size * len(places)

    @property
    def bytes_read(self) -> int:
        """Bytes read so far, each file's header once."""
        pages = sum(part.bytes_read - part.overhead for part in self._parts.values())
        return pages + sum(file.begin for file in self._files.values())

    def known(self, positions: torch.Tensor) -> torch.Tensor:
        """Return which positions lie on pages already read."""
        found = torch.zeros_like(positions, dtype=torch.bool)
        for number, inside in self._split(positions):
            if number in self._parts:
                found[inside] = self._parts[number].known(positions[inside] - number * self._size)
        return found

    def read(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the bytes at positions."""
        found = torch.empty(positions.shape, dtype=torch.uint8)
        for number, inside in self._split(positions):
            found[inside] = self._part(number).read(positions[inside] - number * self._size)
        return found

    def window(self, position: int) -> tuple[int, int]:
        """Return the byte range readable at no more cost."""
        start = position // self._size * self._size
        first, last = self._part(position // self._size).window(position - start)
        return start + first, start + last

    def _split(self, positions: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
        numbers = torch.div(positions, self._size, rounding_mode="floor")
        return [(int(number), numbers == number) for number in sorted(set(numbers.flatten().tolist()))]

    def _part(self, number: int) -> Bytes:
        if number not in self._parts:
            path, name = self._places[number]
            if path not in self._files:
                self._files[path] = TensorFile.open(path)
            part = self._files[path].tensor(name)
            reference = self._parts.get(0, part)
            if (part.shape, part.dtype) != (reference.shape, reference.dtype):
                raise SourceError(f"{part.name} is {_kind(part)}; {reference.name} is {_kind(reference)}")
            self._parts[number] = part
        return self._parts[number]


def _kind(part: Bytes) -> str:
    return f"{part.dtype} {'x'.join(map(str, part.shape))}"

"""Plain tensors of one layer of a checkpoint, by role.

Only what is read is mapped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from preshuffle.layouts.checkpoint import Checkpoint
from preshuffle.layouts.forensics.source import Bytes, SourceError, TensorFile
from preshuffle.registry import Query
from preshuffle.registry.base.words import Role


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


@dataclass(frozen=True, slots=True)
class CheckpointLayer:
    """Tensors of one layer by role, in the files of a checkpoint.

    Attributes:
        place: the checkpoint's folder or file.
        names: of each role's tensor, or of every expert's.
        shards: file of each tensor.
        experts: how many routed experts the layer has.
        shared: names of the shared expert's tensors, by role.
        query: the model's facts, as the checkpoint's configuration says them; None where there is none.
    """

    place: Path
    names: Mapping[Role, list[str]]
    shards: Mapping[str, Path]
    experts: int = 1
    shared: Mapping[Role, list[str]] = field(default_factory=dict)
    query: Query | None = None

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, layer: int | None = None, given: Mapping[str, Any] | None = None
    ) -> CheckpointLayer:
        """Find a layer's tensors in an open checkpoint; nothing is read.

        Args:
            checkpoint: as ``Checkpoint.open`` gives it.
            layer: its number; the first layer with experts by default.
            given: fields of the query beside what the configuration says.

        Raises:
            SourceError: there is no such layer, or it has no experts.
            QueryError: the configuration cannot be read.
        """
        layer = next(iter(checkpoint.experts), 0) if layer is None else layer
        if not 0 <= layer < checkpoint.layers:
            raise SourceError(f"{checkpoint.folder}: layer {layer}; valid: 0..{checkpoint.layers - 1}")
        if layer not in checkpoint.experts:
            valid = _numbers_text(checkpoint.experts)
            raise SourceError(f"{checkpoint.folder}: layer {layer} has no experts; valid: {valid}")
        registry, entries = checkpoint.registry, checkpoint.experts[layer]
        arch = next(iter(registry.book.archs))
        query = registry.query_from_hf_config(checkpoint.config, layer=layer, arch=arch, **(given or {}))
        names: dict[Role, list[str]] = {
            role: [
                name.format(layer=layer, expert=expert)
                for expert in range((checkpoint.routed or 1) if entry.per_expert else 1)
                for name in (entry.name, entry.up)
                if name is not None
            ]
            for role, entry in entries.items()
        }
        shared = {role: [name.format(layer=layer) for name in entry.shared] for role, entry in entries.items()}
        return cls(checkpoint.folder, names, dict(checkpoint.shards), checkpoint.routed or 1, shared, query)

    def tensor(self, role: Role) -> Bytes | None:
        """Return a role's tensor of all experts, or None.

        Raises:
            SourceError: some of its experts are not there.
        """
        names = self.names.get(role, [])
        if len(names) > 1:
            missing = next((name for name in names if name not in self.shards), None)
            if missing is not None:
                raise SourceError(f"{self.place} has no tensor {missing}")
            return JoinedTensors(role, [(self.shards[name], name) for name in names], self.experts)
        return self.named(names[0]) if names and names[0] in self.shards else None

    def needed(self, role: Role) -> Bytes:
        """Return a role's tensor.

        Raises:
            SourceError: the checkpoint has none.
        """
        found = self.tensor(role)
        if found is None:
            raise SourceError(f"{self.place} has no {role}; found: {', '.join(self.names) or 'nothing'}")
        return found

    def named(self, name: str) -> Bytes:
        """Return the tensor of a name that the checkpoint has."""
        return TensorFile.open(self.shards[name]).tensor(name)

    def has_shared(self) -> bool:
        """Return whether the checkpoint has a shared expert that is known."""
        return any(self.shared_of(role) is not None for role in self.shared)

    def shared_of(self, role: Role) -> Bytes | None:
        """Return the shared expert's tensor, or None where none is known."""
        names = self.shared.get(role, [])
        if not names or any(name not in self.shards for name in names):
            return None
        return JoinedTensors(role, [(self.shards[name], name) for name in names], 1)


def _numbers_text(layers: Iterable[int]) -> str:
    numbers = sorted(layers)
    return f"{numbers[0]}..{numbers[-1]}" if numbers else "none"

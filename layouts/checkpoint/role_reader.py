"""Reader of one rank's roles from stored tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from preshuffle.layouts.checkpoint.part import STORED, CheckpointError, Part, unpack_int32
from preshuffle.registry.base.words import Role
from preshuffle.registry.entries import SECOND_LEVEL, CheckpointTensor

OpenTensor = Callable[[Path, str], Any]
"""Opens a tensor of a file; what it returns has ``get_shape()`` and is sliced as safetensors' slices are."""


class RoleReader:
    """Reads roles of a layer, whatever opens the stored tensors."""

    def __init__(self, folder: Path, shards: Mapping[str, Path], open_tensor: OpenTensor) -> None:
        """Read from a folder's shards.

        Args:
            folder: for messages.
            shards: tensor name to the file that holds it.
            open_tensor: opens one of them.
        """
        self._folder = folder
        self._shards = shards
        self._open = open_tensor

    def role(self, role: Role, entry: CheckpointTensor, layer: int, part: Part) -> torch.Tensor:
        """Read a role's tensor, of the part's experts.

        Raises:
            CheckpointError: a tensor is missing, cut short or of another shape or dtype.
        """
        if not entry.per_expert:
            return self._merged(role, entry, layer, part).contiguous()
        return self._stacked(role, entry, self._names(role, entry, layer, part), part)

    def second(self, role: Role, entry: CheckpointTensor, layer: int, part: Part) -> torch.Tensor:
        """Read the scale of a role's scales.

        ``[experts, 2]`` of w13, ``[experts]`` of w2.

        Args:
            role: of the scales.
            entry: how the numbers are stored.
            layer: which layer.
            part: whose experts.

        Raises:
            CheckpointError: see ``role``.
        """
        return self._stacked(f"{role}{SECOND_LEVEL}", entry, self._names(role, entry, layer, part), part)

    def pieces(self, role: Role, entry: CheckpointTensor, layer: int, part: Part) -> list[list[torch.Tensor]]:
        """Read a role's tensor in pieces: by expert, gate before up.

        They are views of what the opened tensors give wherever a slice is one.

        Raises:
            CheckpointError: see ``role``.
        """
        if not entry.per_expert:
            return [[expert] for expert in self._merged(role, entry, layer, part)]
        names = self._names(role, entry, layer, part)
        return [[self._read(name, role, entry, part.take_linear) for name in parts] for parts in names]

    def _merged(self, role: Role, entry: CheckpointTensor, layer: int, part: Part) -> torch.Tensor:
        taken = self._read(entry.name.format(layer=layer), role, entry, part.take)
        return taken.flatten(taken.dim() - entry.merge_last) if entry.merge_last > 1 else taken

    def _names(self, role: Role, entry: CheckpointTensor, layer: int, part: Part) -> list[list[str]]:
        names = [linear_names(entry, layer, expert) for expert in range(part.experts.start, part.experts.stop)]
        return [*names, self._shared_names(role, entry, layer)] if part.shared else names

    def _stacked(self, role: str, entry: CheckpointTensor, names: Sequence[Sequence[str]], part: Part) -> torch.Tensor:
        """Read experts' linear layers into one tensor, gate's rows before up's.

        Each part is copied once, to its place.
        """
        result = torch.empty(0)
        for number, parts in enumerate(names):
            read = [self._read(name, role, entry, part.take_linear) for name in parts]
            if number == 0:
                first = _joined(role, read)
                result = torch.empty((len(names), *first.shape), dtype=first.dtype)
            if len(read) > 1 and not role.endswith("_input_scale") and read[0].dim():
                torch.cat(read, out=result[number])
            else:
                result[number] = _joined(role, read)
        return result

    def _shared_names(self, role: Role, entry: CheckpointTensor, layer: int) -> list[str]:
        if not entry.shared:
            raise CheckpointError(f"{self._folder}: where the shared expert's {role} lies is not in the book")
        return [name.format(layer=layer) for name in entry.shared]

    def _read(self, name: str, role: str, entry: CheckpointTensor, take: Any) -> torch.Tensor:
        path = self._shards.get(name)
        if path is None:
            raise CheckpointError(f"{self._folder}: tensor {name} ({role}) is in no shard")
        try:
            tensor: torch.Tensor = take(role, entry, self._open(path, name))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: tensor {name} ({role}) cannot be read: {error}") from None
        except CheckpointError as error:
            raise CheckpointError(f"{path}: tensor {name}: {error}") from None
        if tensor.dtype not in [STORED[dtype] for dtype in entry.dtypes]:
            found = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{path}: tensor {name} ({role}) is {found}; valid: {' or '.join(entry.dtypes)}")
        if entry.packed > 1:
            return unpack_int32(tensor)
        return tensor.view(torch.uint8) if tensor.dtype == torch.int8 else tensor


def linear_names(entry: CheckpointTensor, layer: int, expert: int) -> list[str]:
    """Return the names of one routed expert's tensors, gate's before up's."""
    return [name.format(layer=layer, expert=expert) for name in (entry.name, entry.up) if name]


def stored_names(entry: CheckpointTensor, layer: int, routed: int, shared: bool) -> list[list[str]]:
    """Return the names of a role's stored tensors, by expert.

    A single list where one tensor holds all experts. The numbers that are multiplied into scales belong to them.

    Args:
        entry: how the role is stored.
        layer: which layer.
        routed: how many routed experts there are.
        shared: whether the shared expert's tensors belong to the role.
    """
    if not entry.per_expert:
        return [[entry.name.format(layer=layer)]]
    names = [linear_names(entry, layer, expert) for expert in range(routed)]
    if shared:
        names.append([name.format(layer=layer) for name in entry.shared])
    if entry.second is None:
        return names
    seconds = stored_names(entry.second, layer, routed, shared)
    return [[*scales, *numbers] for scales, numbers in zip(names, seconds, strict=True)]


def _joined(role: str, parts: list[torch.Tensor]) -> torch.Tensor:
    """Join gate's and up's tensors.

    Rows behind rows, two numbers as a pair, of two input scales the larger.
    """
    if len(parts) == 1:
        return parts[0]
    if role.endswith("_input_scale"):
        return torch.maximum(*parts)
    return torch.stack(parts) if parts[0].dim() == 0 else torch.cat(parts)

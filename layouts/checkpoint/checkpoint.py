"""Reader of one rank's MoE tensors from a Hugging Face checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from preshuffle.layouts.checkpoint.part import STORED, CheckpointError, Part, unpack_int32
from preshuffle.layouts.checkpoint.shard_index import read_shards
from preshuffle.registry import Query, Registry
from preshuffle.registry.base.words import Role
from preshuffle.registry.entries import CheckpointTensor
from preshuffle.registry.hf import (
    ExpertsReader,
    Tensors,
    checkpoint_tensors,
    language_model,
    layers_of,
    method_of,
    model_type_of,
    moe_layers_of,
    number_of,
    read_config,
)

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Sharded safetensors checkpoint, opened without reading tensors.

    Attributes:
        folder: where it lies.
        config: its ``config.json``.
        shards: tensor name to the file that holds it.
        layers: how many layers the model has.
        routed: how many routed experts a layer has.
        experts: layer to its experts' tensors by role, as the book says; dense layers have none.
        registry: whose rules say how engines' loaders cut.
    """

    folder: Path
    config: Mapping[str, Any]
    shards: Mapping[str, Path]
    layers: int
    routed: int | None
    experts: Mapping[int, Tensors]
    registry: Registry = field(repr=False, compare=False)

    @staticmethod
    def open(folder: Path | str, registry: Registry | None = None) -> Checkpoint:
        """Open a checkpoint's folder.

        Raises:
            CheckpointError: a file is missing or is not what its name says.
            QueryError: the configuration cannot be read, or no entry of the book knows the model type.
        """
        registry = registry or Registry.default()
        book = registry.book
        folder = Path(folder)
        config = read_config(folder)
        entry = model_type_of(config, book)
        language = language_model(config, entry)
        shards = read_shards(folder / INDEX, folder / SINGLE)
        experts: dict[int, Tensors] = {}
        reader = ExpertsReader(language, entry, book)
        for layer in moe_layers_of(language, entry):
            variants = checkpoint_tensors(language, entry, book, layer, reader)
            if not variants:
                known = ", ".join(entry.checkpoint) or "none"
                how = f"how {entry.id} stores {method_of(language)!r} is not in the book; valid: {known}"
                raise CheckpointError(f"{folder}: {how}")
            experts[layer] = next((variant for variant in variants if _is_there(variant, layer, shards)), variants[0])
        routed = number_of(language, entry.fields.get("num_experts", ()))
        return Checkpoint(folder, config, shards, layers_of(language, entry), routed, experts, registry)

    @property
    def tensors(self) -> Tensors:
        """Tensor entries of the first MoE layer, by role."""
        return next(iter(self.experts.values()), {})

    def rank(self, layer: int, query: Query, *, tp_rank: int = 0, ep_rank: int = 0) -> dict[str, torch.Tensor]:
        """Read one rank's plain tensors of a layer.

        Rows are in the checkpoint's order, and only the rank's bytes are read.

        Where every expert has tensors of its own they are stacked, gate's rows before up's. Scales are
        ``[experts, rows, K]`` in groups (per_1x32), in blocks (per_1x128, each half on its own), ``[experts, rows, 1]``
        (per_Token), or one number per linear layer: ``[experts, 2]`` of w13, ``[experts]`` of w2 (per_Tensor). Static
        scales of activations are ``[experts]``, of gate's and up's the larger. Packed int4 comes as signed bytes.

        The intermediate size is cut as the loader of the query's engine does it (``Registry.loader_cut``). Where
        it cuts by the size of a rank's buffer (whole blocks, padded), every rank gets tensors of that size, with zeros
        behind its last value.

        A bias of w2 is live on tensor-parallel rank 0 only, zeros elsewhere: it is added once to the reduced sum.

        Args:
            layer: which layer.
            query: its model sizes, ``tp`` and ``ep``.
            tp_rank: tensor-parallel rank.
            ep_rank: expert-parallel rank.

        Raises:
            CheckpointError: a tensor is missing, cut short or of another shape.
            QueryError: the sizes cannot be cut between the ranks.
        """
        if not 0 <= layer < self.layers:
            raise CheckpointError(f"{self.folder}: layer {layer}; valid: 0..{self.layers - 1}")
        if layer not in self.experts:
            valid = f"{min(self.experts)}..{max(self.experts)}" if self.experts else "none"
            raise CheckpointError(f"{self.folder}: layer {layer} has no experts; valid: {valid}")
        part = Part.of(query, tp_rank, ep_rank, self.routed, self.registry.loader_cut(query))
        with ExitStack() as stack:
            files = _Files(self.folder, self.shards, stack)
            return {role: files.role(role, entry, layer, part) for role, entry in self.experts[layer].items()}


class _Files:
    """Shards of a checkpoint, each opened once per read."""

    def __init__(self, folder: Path, shards: Mapping[str, Path], stack: ExitStack) -> None:
        self._folder = folder
        self._shards = shards
        self._stack = stack
        self._opened: dict[Path, Any] = {}

    def role(self, role: Role, entry: CheckpointTensor, layer: int, part: Part) -> torch.Tensor:
        """Read a role's tensor."""
        if not entry.per_expert:
            taken = self._read(entry.name.format(layer=layer), role, entry, part.take)
            merged = taken.flatten(taken.dim() - entry.merge_last) if entry.merge_last > 1 else taken
            return merged.contiguous()
        templates = [name for name in (entry.name, entry.up) if name]
        made = [
            self._linear(role, entry, [name.format(layer=layer, expert=expert) for name in templates], part)
            for expert in range(part.experts.start, part.experts.stop)
        ]
        if part.shared:
            made.append(self._linear(role, entry, [name.format(layer=layer) for name in entry.shared], part))
        return torch.stack(made)

    def _linear(self, role: Role, entry: CheckpointTensor, names: Sequence[str], part: Part) -> torch.Tensor:
        """Read one expert's linear layer, gate and up joined."""
        if not names:
            raise CheckpointError(f"{self._folder}: where the shared expert's {role} lies is not in the book")
        return _join(role, [self._read(name, role, entry, part.take_linear) for name in names])

    def _read(self, name: str, role: Role, entry: CheckpointTensor, take: Any) -> torch.Tensor:
        path = self._shards.get(name)
        if path is None:
            raise CheckpointError(f"{self._folder}: tensor {name} ({role}) is in no shard")
        try:
            tensor: torch.Tensor = take(role, entry, self._file(path).get_slice(name))
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

    def _file(self, path: Path) -> Any:
        if path not in self._opened:
            self._opened[path] = self._stack.enter_context(safe_open(path, framework="pt"))
        return self._opened[path]


def _join(role: Role, parts: list[torch.Tensor]) -> torch.Tensor:
    """Join gate's and up's tensors.

    Rows behind rows, two numbers as a pair, of two input scales the larger.
    """
    if len(parts) == 1:
        return parts[0]
    if role.endswith("_input_scale"):
        return torch.maximum(*parts)
    return torch.stack(parts) if parts[0].dim() == 0 else torch.cat(parts)


def _is_there(variant: Tensors, layer: int, shards: Mapping[str, Path]) -> bool:
    return all(entry.name.format(layer=layer, expert=0) in shards for entry in variant.values())

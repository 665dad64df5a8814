"""Reader of one rank's MoE tensors from a Hugging Face checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from preshuffle.layouts.checkpoint.part import CheckpointError, Part
from preshuffle.layouts.checkpoint.role_reader import RoleReader
from preshuffle.layouts.checkpoint.shard_index import read_shards
from preshuffle.registry import Query, Registry
from preshuffle.registry.entries import SECOND_LEVEL
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
        _check_folder(folder)
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
        scales of activations are ``[experts]``, of gate's and up's the larger. Packed int4 comes as signed bytes. Where
        scales have a scale of their own, it stands under the role with ``_2`` behind it, one number per linear layer.

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
            reader = RoleReader(self.folder, self.shards, _SafetensorsFiles(stack).tensor)
            found: dict[str, torch.Tensor] = {}
            for role, entry in self.experts[layer].items():
                found[role] = reader.role(role, entry, layer, part)
                if entry.second is not None:
                    found[f"{role}{SECOND_LEVEL}"] = reader.second(role, entry.second, layer, part)
            return found


class _SafetensorsFiles:
    """Files of a checkpoint, each opened once per read."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._opened: dict[Path, Any] = {}

    def tensor(self, path: Path, name: str) -> Any:
        """Open one tensor for slicing."""
        if path not in self._opened:
            self._opened[path] = self._stack.enter_context(safe_open(path, framework="pt"))
        return self._opened[path].get_slice(name)


def _check_folder(folder: Path) -> None:
    """Check that a path is no file, and no name of a model on the Hub.

    Raises:
        CheckpointError: it is.
    """
    if os.path.isdir(folder):  # unlike Path.is_dir it raises nothing where the folder cannot be read
        return
    if os.path.exists(folder):
        raise CheckpointError(f"{folder}: is no folder; a checkpoint is a folder with config.json and safetensors")
    if not folder.is_absolute() and len(folder.parts) == 2 and not folder.parent.exists():
        raise CheckpointError(f"{folder}: cannot be read: No such file or directory; on the Hub it is hf://{folder}")


def _is_there(variant: Tensors, layer: int, shards: Mapping[str, Path]) -> bool:
    entries = [one for entry in variant.values() for one in (entry, entry.second) if one is not None]
    return all(entry.name.format(layer=layer, expert=0) in shards for entry in entries)

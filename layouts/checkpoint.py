"""Reading one rank's MoE tensors from a Hugging Face checkpoint, and writing a small one of the same structure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from preshuffle.registry import PreshuffleError, Query, Registry
from preshuffle.registry.entries import CheckpointTensor
from preshuffle.registry.hf_config import layers_of, model_type_of, quantization_of, read_config
from preshuffle.registry.shard import Slice, cut, split_experts
from preshuffle.registry.words import GROUP, Role

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_DTYPES = {"uint8": torch.uint8, "bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}


class CheckpointError(PreshuffleError, ValueError):
    """A checkpoint cannot be read; the message names the file and the tensor."""


@dataclass(frozen=True)
class Checkpoint:
    """A sharded safetensors checkpoint, opened but not read.

    Attributes:
        folder: where it lies.
        config: its ``config.json``.
        shards: tensor name to the file that holds it.
        tensors: role to the tensor that holds it, as the book says.
    """

    folder: Path
    config: Mapping[str, Any]
    shards: Mapping[str, Path]
    tensors: Mapping[Role, CheckpointTensor]
    layers: int

    @staticmethod
    def open(folder: Path | str, registry: Registry | None = None) -> Checkpoint:
        """Open a checkpoint's folder.

        Raises:
            CheckpointError: a file is missing or is not what its name says.
            QueryError: the configuration cannot be read, or no entry of the book knows the model type.
        """
        book = (registry or Registry.default()).book
        folder = Path(folder)
        config = read_config(folder)
        entry = model_type_of(config, book)
        method = quantization_of(config)
        if method not in entry.checkpoint:
            known = ", ".join(entry.checkpoint)
            raise CheckpointError(f"{folder}: how {entry.id} stores {method!r} is not in the book; valid: {known}")
        return Checkpoint(folder, config, _shards(folder), entry.checkpoint[method], layers_of(config, book))

    def rank(self, layer: int, query: Query, *, tp_rank: int = 0, ep_rank: int = 0) -> dict[str, torch.Tensor]:
        """Read what one rank holds of a layer: plain tensors in the checkpoint's row order, only their bytes.

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
        if not (0 <= tp_rank < query.tp and 0 <= ep_rank < query.ep):
            raise CheckpointError(f"rank (tp {tp_rank}, ep {ep_rank}) is not one of tp={query.tp}, ep={query.ep}")
        if query.intermediate_size is None or query.num_experts is None or query.quant_type is None:
            raise CheckpointError("the query must say intermediate_size, num_experts and quant_type")
        group = GROUP.get(query.quant_type, 1)
        columns = cut(query.intermediate_size, query.tp, group)[tp_rank]
        experts = split_experts(query.num_experts, query.ep)[ep_rank]
        part = _Part(experts, columns, group, query.gate_up_order or "GGUU", query, tp_rank)
        return {role: self._read(role, entry, layer, part) for role, entry in self.tensors.items()}

    def _read(self, role: Role, entry: CheckpointTensor, layer: int, part: _Part) -> torch.Tensor:
        name = entry.name.format(layer=layer)
        path = self.shards.get(name)
        if path is None:
            raise CheckpointError(f"{self.folder}: tensor {name} ({role}) is in no shard")
        try:
            with safe_open(path, framework="pt") as shard:
                view = shard.get_slice(name)
                part.check(role, tuple(view.get_shape()))
                tensor = part.take(role, view)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: tensor {name} ({role}) cannot be read: {error}") from None
        if tensor.dtype != _DTYPES[entry.dtype]:
            found = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{path}: tensor {name} ({role}) is {found}; valid: {entry.dtype}")
        merged = tensor.flatten(tensor.dim() - entry.merge_last) if entry.merge_last > 1 else tensor
        return merged.contiguous()


@dataclass(frozen=True, slots=True)
class _Part:
    """What one rank takes of every tensor of a layer."""

    experts: Slice
    columns: Slice
    group: int
    order: str
    query: Query
    tp_rank: int

    def check(self, role: Role, found: tuple[int, ...]) -> None:
        """Compare a stored shape with the model's sizes (a weight's K may be stored as several dimensions)."""
        hidden, intermediate = self.query.hidden_size or 0, self.query.intermediate_size or 0
        rows, k = (2 * intermediate, hidden) if role.startswith("w13") else (hidden, intermediate)
        wanted: tuple[int, ...] = (self.query.num_experts or 0, rows)
        if role.endswith("_scale"):
            wanted = (*wanted, k // self.group)
        elif role.endswith("_weight"):
            wanted = (*wanted, k // 2)
        flat = (*found[:2], prod(found[2:])) if len(found) > 3 else found
        if flat != wanted:
            raise CheckpointError(f"{role} is stored as {found}; the configuration's sizes need {wanted}")

    def take(self, role: Role, view: Any) -> torch.Tensor:
        """Cut a role's tensor: w13 by rows, w2 by K (in groups where the checkpoint counts groups)."""
        experts = slice(self.experts.start, self.experts.stop)
        intermediate = self.query.intermediate_size or 1
        if role.startswith("w13"):
            if self.order == "GUGU":
                rows: torch.Tensor = view[experts, 2 * self.columns.start : 2 * self.columns.stop]
                return rows
            halves = (0, intermediate)
            parts = [view[experts, half + self.columns.start : half + self.columns.stop] for half in halves]
            return torch.cat(parts, dim=1)
        if role == "w2_bias":
            bias: torch.Tensor = view[experts]
            return bias if self.tp_rank == 0 else torch.zeros_like(bias)
        size = view.get_shape()[2]
        columns: torch.Tensor = view[
            experts, :, self.columns.start * size // intermediate : self.columns.stop * size // intermediate
        ]
        return columns


def _shards(folder: Path) -> dict[str, Path]:
    index = folder / INDEX
    if index.is_file():
        try:
            table = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            return {str(name): folder / str(file) for name, file in table.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{index}: not a safetensors index ({error})") from None
    single = folder / SINGLE
    if not single.is_file():
        raise CheckpointError(f"{folder}: neither {INDEX} nor {SINGLE} is there")
    try:
        with safe_open(single, framework="pt") as shard:
            return dict.fromkeys(shard.keys(), single)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{single}: cannot be read: {error}") from None


def write_checkpoint(
    folder: Path | str, config: Mapping[str, Any], *, seed: int = 0, registry: Registry | None = None
) -> Checkpoint:
    """Write a checkpoint of random weights with a model type's own names and shapes, one shard per layer.

    Args:
        folder: where; created if needed.
        config: a ``config.json``; its sizes and number of layers are used.
        seed: of the random numbers; scales are codes near 1.0 (120..130), weights all 16 codes.
        registry: whose book says how the model type stores its tensors.

    Raises:
        QueryError: no entry of the book knows the model type.
    """
    registry = registry or Registry.default()
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be made: {error.strerror}") from None
    book = registry.book
    query = Query.from_hf_config(config, registry=registry, arch=next(iter(book.archs)))
    entry = model_type_of(config, book)
    tensors = entry.checkpoint[quantization_of(config)]
    random = torch.Generator().manual_seed(seed)
    layers = layers_of(config, book)
    weight_map: dict[str, str] = {}
    for layer in range(layers):
        file = f"model-{layer + 1:05d}-of-{layers:05d}.safetensors"
        made = {
            tensor.name.format(layer=layer): _random(role, tensor, query, random) for role, tensor in tensors.items()
        }
        save_file(made, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(made, file))
    size = sum((folder / file).stat().st_size for file in set(weight_map.values()))
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(dict(config), indent=1), encoding="utf-8")
    return Checkpoint.open(folder, registry)


def _random(role: Role, tensor: CheckpointTensor, query: Query, random: torch.Generator) -> torch.Tensor:
    experts, hidden, intermediate = query.num_experts or 1, query.hidden_size or 1, query.intermediate_size or 1
    group = GROUP.get(query.quant_type or "No", 1)
    rows, k = (2 * intermediate, hidden) if role.startswith("w13") else (hidden, intermediate)
    dtype = _DTYPES[tensor.dtype]
    if role.endswith("_bias"):
        return torch.randn(experts, rows, generator=random).to(dtype)
    if role.endswith("_scale"):
        return torch.randint(120, 131, (experts, rows, k // group), dtype=dtype, generator=random)
    last = (k // group, group // 2) if tensor.merge_last == 2 else (k // 2,)
    return torch.randint(0, 256, (experts, rows, *last), dtype=dtype, generator=random)

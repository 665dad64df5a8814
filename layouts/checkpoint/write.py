"""Writer of small random checkpoints in a model type's own format.

Names, dtypes and shapes are the model type's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from preshuffle.layouts.checkpoint.checkpoint import INDEX, Checkpoint
from preshuffle.layouts.checkpoint.part import STORED, CheckpointError, Part
from preshuffle.layouts.tensors import E8M0, FLOAT_DTYPES
from preshuffle.registry import Query, Registry
from preshuffle.registry.entries import SECOND_LEVEL, CheckpointTensor, StoredDtype
from preshuffle.registry.hf import (
    Tensors,
    checkpoint_tensors,
    language_model,
    layers_of,
    method_of,
    model_type_of,
    moe_layers_of,
)


def write_checkpoint(
    folder: Path | str, config: Mapping[str, Any], *, seed: int = 0, registry: Registry | None = None
) -> Checkpoint:
    """Write a checkpoint of random weights, one shard per layer.

    Names and shapes are the model type's own.

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
    entry = model_type_of(config, registry.book)
    language = language_model(config, entry)
    layers = layers_of(language, entry)
    random = torch.Generator().manual_seed(seed)
    shared = any(language.get(name) for name in (*entry.shared_experts, *entry.shared_expert_size))
    weight_map: dict[str, str] = {}
    for layer in moe_layers_of(language, entry):
        arch = next(iter(registry.book.archs))
        query = registry.query_from_hf_config(config, layer=layer, arch=arch)
        variants = checkpoint_tensors(language, entry, registry.book, layer)
        if not variants:
            raise CheckpointError(f"how {entry.id} stores {method_of(language)!r} is not in the book")
        file = f"model-{layer + 1:05d}-of-{layers:05d}.safetensors"
        made = dict(_layer(variants[0], query, layer, shared, random))
        save_file(made, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(made, file))
    size = sum((folder / file).stat().st_size for file in set(weight_map.values()))
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(dict(config), indent=1), encoding="utf-8")
    return Checkpoint.open(folder, registry)


def _layer(
    tensors: Tensors, query: Query, layer: int, shared: bool, random: torch.Generator
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a layer's tensors, each under its name."""
    part = Part.of(query, 0, 0)
    for role, entry in _with_seconds(tensors):
        dtype = STORED[_stored_dtype(role, entry, query)]
        if not entry.per_expert:
            shape = part.stored_shape(role, entry)
            if entry.merge_last == 2:
                shape = (*shape[:2], shape[2] * 2 // part.group, part.group // 2)
            yield entry.name.format(layer=layer), _random(role, shape, dtype, random)
            continue
        for expert in range(query.num_experts or 0):
            for name in (entry.name, entry.up):
                if name is not None:
                    shape = part.linear_shape(role, entry)
                    yield name.format(layer=layer, expert=expert), _random(role, shape, dtype, random)
        for name in entry.shared if shared else ():
            yield name.format(layer=layer), _random(role, part.linear_shape(role, entry), dtype, random)


def _with_seconds(tensors: Tensors) -> Iterator[tuple[str, CheckpointTensor]]:
    """Yield roles, and behind each the scale of its scales."""
    for role, entry in tensors.items():
        yield role, entry
        if entry.second is not None:
            yield f"{role}{SECOND_LEVEL}", entry.second


def _stored_dtype(role: str, entry: CheckpointTensor, query: Query) -> StoredDtype:
    """Return the dtype of the configuration's weights where the model type stores several."""
    scale = role.endswith(("_scale", SECOND_LEVEL))
    wanted = [dtype for dtype in entry.dtypes if dtype == query.weight_dtype and not scale]
    return (wanted or entry.dtypes)[0]


def _random(role: str, shape: tuple[int, ...], dtype: torch.dtype, random: torch.Generator) -> torch.Tensor:
    """Return random weights or scales of a dtype.

    Weights take all codes but those that are no number; scales are near 1.0.
    """
    if role.endswith(("_scale", SECOND_LEVEL)):
        if dtype in (torch.uint8, E8M0):
            return torch.randint(120, 131, shape, dtype=torch.uint8, generator=random).view(dtype)
        return torch.empty(shape).uniform_(0.5, 2.0, generator=random).to(dtype)
    if dtype == torch.float8_e4m3fn:
        codes = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
        return codes.where((codes & 0x7F) != 0x7F, 0).view(dtype)
    if dtype in FLOAT_DTYPES:
        return torch.randn(shape, generator=random).to(dtype)
    low, high = (0, 256) if dtype == torch.uint8 else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    return torch.randint(low, high, shape, dtype=dtype, generator=random)

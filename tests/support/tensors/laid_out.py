"""Small checkpoints for tests of whole checkpoints, and what lies in a laid-out one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from preshuffle.layouts import Checkpoint, apply, stamps_from_metadata, write_checkpoint
from preshuffle.registry import Decision, Query
from support.book.quantizations import CASES, MODEL
from support.tensors.moe import hf_config

SECTIONS = {name: section for name, section, _ in CASES}
QWEN: dict[str, Any] = {**MODEL, "moe_intermediate_size": 256, "num_hidden_layers": 1}
DEEPSEEK: dict[str, Any] = {
    **QWEN,
    "model_type": "deepseek_v3",
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "first_k_dense_replace": 0,
}
LLAMA4: dict[str, Any] = {
    "model_type": "llama4_text",
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_local_experts": 4,
    "num_experts_per_tok": 1,
    "num_hidden_layers": 1,
    "interleave_moe_layer_step": 1,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
}
GPT_OSS: dict[str, Any] = hf_config(layers=2)


def quantized(base: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Return a configuration with one of the known quantization sections."""
    chosen = SECTIONS[section]
    return {**base, "quantization_config": chosen} if chosen else dict(base)


def checkpoint_with_others(folder: Path, config: Mapping[str, Any] = GPT_OSS, *, seed: int = 0) -> Checkpoint:
    """Write a checkpoint with tensors that are no experts', a tokenizer and an index that lists all of them."""
    checkpoint = write_checkpoint(folder, config, seed=seed)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    for number, name in enumerate(sorted(set(index["weight_map"].values()))):
        with safe_open(folder / name, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        tensors[f"model.layers.{number}.self_attn.q_proj.weight"] = torch.randn(64, 32).to(torch.bfloat16)
        tensors[f"model.layers.{number}.input_layernorm.weight"] = torch.randn(33)
        save_file(tensors, folder / name, metadata={"format": "pt"})
        index["weight_map"].update(dict.fromkeys(tensors, name))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "tokenizer.json").write_text("{}")
    return Checkpoint.open(checkpoint.folder)


def applied_one_by_one(
    checkpoint: Checkpoint, query: Query, decision: Decision, layer: int, **options: Any
) -> Iterator[tuple[int, int, dict[str, torch.Tensor]]]:
    """Yield every rank's tensors of a layer as ``apply`` lays them out in memory: what files must hold."""
    for ep_rank in range(query.ep):
        for tp_rank in range(query.tp):
            read = checkpoint.rank(layer, query, tp_rank=tp_rank, ep_rank=ep_rank)
            tensors = {role: tensor.clone() for role, tensor in read.items()}
            apply(tensors, decision, last_rank=tp_rank == query.tp - 1, backend="native", **options)
            yield tp_rank, ep_rank, tensors


def read_stamped(path: Path) -> dict[str, torch.Tensor]:
    """Return a file's tensors as safetensors reads them, stamped from its metadata."""
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        stamps_from_metadata(tensors, file.metadata())
    return tensors


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor's bytes."""
    return tensor.contiguous().view(-1).view(torch.uint8)


def query_of(checkpoint: Checkpoint, layer: int = 0, **fields: Any) -> Query:
    return checkpoint.registry.query_from_hf_config(checkpoint.folder, layer=layer, **fields)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder, by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_named_files_are_whole(out: Path, wanted: Mapping[str, bytes]) -> None:
    """Assert that files under their own names are whole; what a run works on has other names."""
    for name, data in contents(out).items():
        if ".unfinished" not in name and not name.endswith(".partial"):
            assert data == wanted[name], name


def is_unfinished(out: Path) -> bool:
    """Return whether a folder shows that it is not whole, whatever lies in it."""
    return not (out / "manifest.json").exists()

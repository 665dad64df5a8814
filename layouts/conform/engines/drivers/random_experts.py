"""Random experts as a checkpoint stores them, and one rank's tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from preshuffle.layouts.checkpoint import unpack_int32
from preshuffle.registry import Decision
from preshuffle.registry.base.words import Role
from preshuffle.registry.values.decision import TensorDecision


@dataclass(frozen=True, slots=True)
class StoredFormat:
    """How a checkpoint stores weights.

    Attributes:
        weight: dtype of the stored weights; ``uint8`` holds two fp4 values.
        packed: values per element.
        scale: dtype of the scales; None where there are none.
        rows: rows that share one scale; 0: all of an expert.
        k: values of K that share one scale; 0: the whole row.
    """

    weight: torch.dtype
    packed: int = 1
    scale: torch.dtype | None = None
    rows: int = 1
    k: int = 0


FORMATS: Final = {
    "bf16": StoredFormat(torch.bfloat16),
    "fp8_block": StoredFormat(torch.float8_e4m3fn, scale=torch.float32, rows=128, k=128),
    "fp8_channel": StoredFormat(torch.float8_e4m3fn, scale=torch.float32),
    "fp8_tensor": StoredFormat(torch.float8_e4m3fn, scale=torch.float32, rows=0),
    "int4": StoredFormat(torch.int32, packed=8, scale=torch.bfloat16, k=32),
    "mxfp4": StoredFormat(torch.uint8, packed=2, scale=torch.uint8, k=32),
    "mxfp8": StoredFormat(torch.float8_e4m3fn, scale=torch.uint8, k=32),
}

SHARDS: Final = {"w1": "gate", "w3": "up", "w2": "down"}
"""Projections by the names that engines' loaders give them."""


class RandomExperts:
    """Experts of one layer, unsharded: ``tensors[shard, kind]`` is ``[E, rows, K]``."""

    def __init__(
        self, form: str, experts: int, hidden: int, intermediate: int, *, bias: bool = False, static: bool = False
    ) -> None:
        """Draw them; equal sizes give equal values.

        Args:
            form: key of ``FORMATS``.
            experts: how many.
            hidden: width of the model.
            intermediate: inner width of an expert.
            bias: whether projections have biases.
            static: whether activations have scales.
        """
        self.form = FORMATS[form]
        self.random = torch.Generator().manual_seed(experts * hidden + intermediate)
        self.tensors: dict[tuple[str, str], Tensor] = {}
        for shard in SHARDS:
            rows, k = (hidden, intermediate) if shard == "w2" else (intermediate, hidden)
            self.tensors[shard, "weight"] = self._weight(experts, rows, k)
            if self.form.scale is not None:
                self.tensors[shard, "scale"] = self._scale(experts, rows, k)
            if bias:
                self.tensors[shard, "bias"] = self._floats(experts, rows).bfloat16()
            if static:
                self.tensors[shard, "input_scale"] = self._input_scale(experts, shard)

    def _floats(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random)

    def _weight(self, experts: int, rows: int, k: int) -> Tensor:
        if self.form.weight is torch.int32:
            shape = (experts, rows, k // self.form.packed)
            return torch.randint(-(1 << 31), 1 << 31, shape, generator=self.random).to(torch.int32)
        if self.form.weight is torch.uint8:
            shape = (experts, rows, k // self.form.packed)
            return torch.randint(0, 256, shape, generator=self.random, dtype=torch.uint8)
        return self._floats(experts, rows, k).mul_(16).to(self.form.weight)

    def _scale(self, experts: int, rows: int, k: int) -> Tensor:
        groups = -(-k // self.form.k) if self.form.k else 1
        blocks = -(-rows // self.form.rows) if self.form.rows else 1
        if self.form.scale is torch.uint8:
            return torch.randint(110, 140, (experts, blocks, groups), generator=self.random, dtype=torch.uint8)
        return self._floats(experts, blocks, groups).abs_().add_(0.1).to(self.form.scale)

    def _input_scale(self, experts: int, shard: str) -> Tensor:
        if shard == "w3":
            return self.tensors["w1", "input_scale"]
        return self._floats(experts).abs_().add_(0.1)

    def plain(self, decision: Decision, rank: int, ep_rank: int = 0) -> dict[Role, Tensor]:
        """Return the tensors of one rank in the shapes that ``apply`` takes."""
        experts = decision.tensors["w13_weight"].logical_shape[0]
        local = slice(ep_rank * experts, (ep_rank + 1) * experts)
        made = {role: tensor[local].contiguous() for role, tensor in self._of_all_experts(decision, rank).items()}
        return {role: unpack_int32(tensor) if tensor.dtype == torch.int32 else tensor for role, tensor in made.items()}

    def _of_all_experts(self, decision: Decision, rank: int) -> dict[Role, Tensor]:
        made: dict[Role, Tensor] = {}
        for role, decided in decision.tensors.items():
            projection, _, kind = role.partition("_")
            kind = {"weight_scale": "scale"}.get(kind, kind)
            if kind == "input_scale" and ("w1", kind) not in self.tensors:
                continue
            if kind == "input_scale":
                made[role] = self.tensors["w1" if projection == "w13" else "w2", kind]
            elif projection == "w13":
                made[role] = self._w13(decided, kind, rank)
            else:
                made[role] = self._w2(decided, kind, rank)
        return made

    def _w13(self, decided: TensorDecision, kind: str, rank: int) -> Tensor:
        gate, up = self.tensors["w1", kind], self.tensors["w3", kind]
        if kind == "scale" and not self.form.rows:
            return torch.cat([gate[..., 0], up[..., 0]], 1)
        rows = decided.logical_shape[1] // 2
        halves = [half[:, rank * rows : (rank + 1) * rows] for half in (gate, up)]
        if decided.source_order == "GUGU":
            return torch.stack(halves, 2).flatten(1, 2)
        return torch.cat(halves, 1)

    def _w2(self, decided: TensorDecision, kind: str, rank: int) -> Tensor:
        unsharded = self.tensors["w2", kind]
        if kind == "scale" and not self.form.rows:
            return unsharded[:, 0, 0].clone()
        if kind == "bias":
            return unsharded if rank == 0 else torch.zeros_like(unsharded)
        if kind == "scale" and not self.form.k:
            return unsharded.clone()
        k = decided.logical_shape[2] // (self.form.packed if kind == "weight" else 1)
        return unsharded[..., rank * k : (rank + 1) * k].contiguous()

    def fused(self, projection: str, kind: str, tp: int, rank: int) -> Tensor:
        """Return one rank's part of a tensor of all experts.

        Gate and up rows alternate; ranks are cut in whole groups of 32.
        """
        unsharded = self.tensors["w1" if projection == "w13" else "w2", kind]
        inner = self.tensors["w1", "weight"].shape[1]
        size = -(-inner // 32 // tp) * 32
        if projection == "w13":
            cut = slice(rank * size, (rank + 1) * size)
            return torch.stack([unsharded[:, cut], self.tensors["w3", kind][:, cut]], 2).flatten(1, 2)
        if kind == "bias":
            return unsharded if rank == 0 else torch.zeros_like(unsharded)
        per_element = self.form.packed if kind == "weight" else self.form.k
        return unsharded[..., rank * size // per_element : (rank + 1) * size // per_element]

    def shard_of(self, expert: int, shard: str, kind: str) -> Any:
        """Return what a checkpoint's file has for one expert."""
        unsharded = self.tensors[shard, kind][expert]
        if kind == "scale" and not self.form.rows:
            return unsharded.reshape(())
        return unsharded

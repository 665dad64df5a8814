"""Minimal MoE layer on two tensor-parallel ranks, with its whole life.

Two processes (gloo) load a layer of a gpt-oss checkpoint, observe it, prepare it, run it, update its weights as
reinforcement learning does, and exchange two experts. After each step the ranks' sum is compared with the plain model
in float64. The kernel is a stand-in that fetches every byte through its layout's address, as AITER's kernels do, so no
GPU is needed::

    python examples/minimal_moe.py [--folder .example]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from preshuffle.layouts import (
    Checkpoint,
    PreparedLayer,
    expert_view,
    guard_calls,
    observe_layer,
    plain_reload,
    prepare,
    write_checkpoint,
)
from preshuffle.layouts.proof.reference import Routing, laid_out_forward, plain_forward, random_routing, relative_error
from preshuffle.registry import Decision, Query, Registry

RANKS = 2
CONFIG: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "torch_dtype": "bfloat16",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 1,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "swiglu_limit": 7.0,
    "quantization_config": {"quant_method": "mxfp4"},
}
GPU = {"arch": "gfx950", "cu_num": 256, "aiter": "0.1.20", "activation_dtype": "fp4x2"}
SWAPPED = (0, 3)
AGREES = 1e-12
"""Relative error below which two sums in float64 are the same."""
Tensors = dict[str, torch.Tensor]


class Experts(torch.nn.Module):
    """Experts of one layer on one rank, as an engine keeps them."""

    def __init__(self, tensors: Tensors) -> None:
        """Take a rank's plain tensors."""
        super().__init__()
        for role, tensor in tensors.items():
            self.register_parameter(role, torch.nn.Parameter(tensor.clone(), requires_grad=False))


class Rank:
    """One process of the example: its layer, and what it prepared."""

    def __init__(self, rank: int, folder: Path) -> None:
        """Read this rank's share of the checkpoint."""
        registry = Registry.default()
        self.rank = rank
        self.query = registry.query_from_hf_config(folder, tp=RANKS, **GPU)
        self.whole = registry.query_from_hf_config(folder, **GPU)
        self.decision = registry.resolve(self.whole)
        self.checkpoint = Checkpoint.open(folder)
        self.layer = Experts(self.plain(self.query, rank))
        self.routing = random_routing(8, CONFIG["num_local_experts"], CONFIG["num_experts_per_tok"], seed=1)
        random = torch.Generator().manual_seed(2)
        self.x = torch.randn(8, CONFIG["hidden_size"], generator=random, dtype=torch.float64)

    def plain(self, query: Query, rank: int = 0) -> Tensors:
        """Return plain tensors of a rank, or of the whole layer."""
        return self.checkpoint.rank(0, query, tp_rank=rank)

    def run(self, prepared: PreparedLayer, routing: Routing) -> torch.Tensor:
        """Call the kernel as an engine does, and add the ranks up."""
        decision: Decision = prepared.decision

        def fused_moe(hidden_states: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor, **_: Any) -> torch.Tensor:
            tensors = {role: self.layer.get_parameter(role) for role in decision.tensors}
            return laid_out_forward(tensors, decision, hidden_states, routing)

        guarded = guard_calls(fused_moe, **{name: GPU[name] for name in ("arch", "cu_num", "aiter")})
        passed = prepared.kwargs("aiter.fused_moe")
        result = guarded(self.x, topk_weight=routing.weights, topk_ids=routing.experts, **passed)
        dist.all_reduce(result)
        return result

    def error(self, prepared: PreparedLayer, plain: Tensors, routing: Routing | None = None) -> float:
        """Return the relative error against the plain model; experts may have moved."""
        wanted = plain_forward(plain, self.decision, self.x, self.routing)
        return relative_error(self.run(prepared, routing or self.routing), wanted)


def live(rank: Rank) -> dict[str, Any]:
    """Take one rank through the layer's life."""
    seen: dict[str, Any] = {}
    whole = rank.plain(rank.whole)
    before = observe_layer(rank.layer, checkpoint=whole, query=rank.query)
    seen["loaded"] = {role: tensor.layout for role, tensor in before.tensors.items()}

    fields = {name: getattr(rank.query, name) for name in rank.query.model_fields_set if name != "model"}
    prepared = prepare(rank.layer, model=rank.query.model, on_environment="tell", **fields)
    seen["recipe"], seen["verdict"] = prepared.decision.recipe, prepared.report.verdict
    seen["call"] = prepared.check(prepared.kwargs("aiter.fused_moe")).verdict
    seen["prepared"] = rank.error(prepared, whole)

    update = {role: _changed(role, tensor) for role, tensor in whole.items()}
    mine = {role: _changed(role, tensor) for role, tensor in rank.plain(rank.query, rank.rank).items()}
    addresses = {role: rank.layer.get_parameter(role).data_ptr() for role in prepared.decision.tensors}
    with plain_reload(rank.layer, prepared.decision) as plain:
        for role, tensor in plain.items():
            tensor.copy_(mine[role])  # as an engine's own weight loader does
    seen["updated"] = rank.error(prepared, update)
    seen["addresses stay"] = all(rank.layer.get_parameter(role).data_ptr() == at for role, at in addresses.items())

    _swap(rank.layer, prepared.decision)
    moved = rank.routing.experts.clone()
    for here, there in (SWAPPED, SWAPPED[::-1]):
        moved[rank.routing.experts == here] = there
    seen["migrated"] = rank.error(prepared, update, Routing(moved, rank.routing.weights))
    after = observe_layer(rank.layer, call=prepared.kwargs("aiter.fused_moe"))
    seen["observed"] = {role: tensor.layout for role, tensor in after.tensors.items()}
    return seen


def _changed(role: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return what an optimiser might have made of a tensor: other codes, halved biases."""
    return tensor / 2 if tensor.is_floating_point() else tensor if role.endswith("_scale") else tensor ^ 0x11


def _swap(layer: Experts, decision: Decision) -> None:
    """Exchange the laid-out bytes of two experts, as a load balancer does."""
    for role in decision.tensors:
        here, there = (expert_view(layer, role, expert) for expert in SWAPPED)
        kept = here.view(torch.uint8).clone()
        here.view(torch.uint8).copy_(there.view(torch.uint8))
        there.view(torch.uint8).copy_(kept)


def run_rank(rank: int, folder: Path) -> dict[str, Any]:
    """Run one rank of two; return what it saw."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = dist.FileStore(str(folder / "store"), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    try:
        return live(Rank(rank, folder / "checkpoint"))
    finally:
        dist.destroy_process_group()


def run(folder: Path) -> list[dict[str, Any]]:
    """Write a checkpoint, run both ranks, return what each saw.

    The first rank runs in this process.

    Raises:
        RuntimeError: the other rank failed.
    """
    write_checkpoint(folder / "checkpoint", CONFIG)
    command = [sys.executable, __file__, "--folder", str(folder), "--rank", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        first = run_rank(0, folder)
        text, _ = other.communicate(timeout=120)
    if other.returncode:
        raise RuntimeError(f"rank 1 ended with {other.returncode}")
    return [first, json.loads(text.splitlines()[-1])]


def main() -> int:
    """Run the example; exit with 0 if all agree."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.rank is not None:
        print(json.dumps(run_rank(given.rank, given.folder)), flush=True)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        seen = run(given.folder or Path(temporary))
    for rank, steps in enumerate(seen):
        print(f"rank {rank}")
        for step, value in steps.items():
            print(f"  {step:<16}{value:.2e}" if isinstance(value, float) else f"  {step:<16}{value}")
    worst = max(steps[name] for steps in seen for name in ("prepared", "updated", "migrated"))
    print("Everything agrees with the plain model." if worst < AGREES else "The plain model computes otherwise.")
    return 0 if worst < AGREES else 1


if __name__ == "__main__":
    sys.exit(main())

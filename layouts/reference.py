"""A reference MoE layer in float64, on the checkpoint's plain tensors and on laid-out ones.

The laid-out side fetches every byte through the layout's closed-form address, as a kernel does. It shares no code with
the copy plans that laid the bytes out, so that one proves the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from preshuffle.layouts.dtypes import as_bytes
from preshuffle.layouts.mxfp4 import dequantize
from preshuffle.layouts.single import layout_of
from preshuffle.registry import BoundLayout, Decision


@dataclass(frozen=True, slots=True)
class Routing:
    """Which experts each token goes to, and with which weight: both ``[tokens, top_k]``."""

    experts: torch.Tensor
    weights: torch.Tensor


def route(tokens: int, experts: int, top_k: int, seed: int = 0) -> Routing:
    """Make a routing with random experts and softmax weights."""
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(tokens, experts, generator=random, dtype=torch.float64)
    best = scores.topk(top_k, dim=-1)
    return Routing(best.indices, best.values.softmax(dim=-1))


def swiglu(gate: torch.Tensor, up: torch.Tensor, alpha: float, limit: float | None) -> torch.Tensor:
    """Return gpt-oss's SwiGLU: ``gate * sigmoid(alpha * gate) * (up + 1)``, both clamped at ``limit``."""
    if limit is not None:
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return gate * torch.sigmoid(alpha * gate) * (up + 1)


def addresses(bound: BoundLayout, expert: int, rows: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Return the addresses of units ``(expert, rows, k)``: ``BoundLayout.address`` on tensors that broadcast."""
    position = {"experts": torch.tensor(expert), "rows": rows, "k": k}
    address = torch.zeros((), dtype=torch.int64)
    for atom in bound.atoms:
        digit = torch.div(position[atom.dimension], atom.step, rounding_mode="floor") % atom.size
        address = address * atom.size + digit
    return address


def fetch(tensor: torch.Tensor, layout: str, shape: tuple[int, int, int], expert: int) -> torch.Tensor:
    """Fetch one expert's plain bytes ``uint8 [rows, K bytes]`` from laid-out ones, one address at a time.

    Args:
        tensor: the laid-out tensor.
        layout: its layout.
        shape: its physical ``[experts, rows, K bytes]``.
        expert: which expert.
    """
    bound = layout_of(layout).bind(*shape)
    rows, k = torch.arange(shape[1]).unsqueeze(1), torch.arange(shape[2])
    return as_bytes(tensor.detach()).cpu()[addresses(bound, expert, rows, k)]


@dataclass(frozen=True, slots=True)
class Expert:
    """One expert's weights and biases in float64: gate, up ``[rows, hidden]`` and down ``[hidden, rows]``."""

    gate: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor
    gate_bias: torch.Tensor
    up_bias: torch.Tensor
    down_bias: torch.Tensor


def plain_forward(
    tensors: Mapping[str, torch.Tensor], decision: Decision, x: torch.Tensor, routing: Routing
) -> torch.Tensor:
    """Run the layer on the checkpoint's plain tensors: ``float64 [tokens, hidden]``.

    Args:
        tensors: one rank's roles as the checkpoint holds them.
        decision: says the row order and the activation's parameters.
        x: ``float64 [tokens, hidden]``.
        routing: of the tokens.
    """
    alternating = decision.tensors["w13_weight"].source_order == "GUGU"

    def matrix(role: str, expert: int) -> torch.Tensor:
        return dequantize(tensors[role][expert], tensors[f"{role}_scale"][expert])

    return _forward(tensors, decision, x, routing, matrix, _alternating if alternating else _halves)


def laid_out_forward(
    tensors: Mapping[str, torch.Tensor], decision: Decision, x: torch.Tensor, routing: Routing
) -> torch.Tensor:
    """Run the layer on laid-out tensors, pads included, through closed-form addresses: ``float64 [tokens, hidden]``."""

    def matrix(role: str, expert: int) -> torch.Tensor:
        parts = []
        for name in (role, f"{role}_scale"):
            decided = decision.tensors[name]  # type: ignore[index]
            _, rows, k = decided.physical_shape
            shape = (tensors[name].shape[0], rows, k // 2 if name == role else k)
            parts.append(fetch(tensors[name], decided.layout, shape, expert))
        return dequantize(*parts)

    padded = torch.zeros(x.shape[0], decision.tensors["w13_weight"].physical_shape[2], dtype=torch.float64)
    padded[:, : x.shape[1]] = x
    return _forward(tensors, decision, padded, routing, matrix, _halves)[:, : x.shape[1]]


def _alternating(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return rows[0::2], rows[1::2]


def _halves(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    half = rows.shape[0] // 2
    return rows[:half], rows[half:]


def _expert(
    tensors: Mapping[str, torch.Tensor],
    expert: int,
    matrix: Callable[[str, int], torch.Tensor],
    gate_up: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
) -> Expert:
    w13, w2 = matrix("w13_weight", expert), matrix("w2_weight", expert)
    b13 = tensors["w13_bias"][expert].double() if "w13_bias" in tensors else w13.new_zeros(w13.shape[0])
    b2 = tensors["w2_bias"][expert].double() if "w2_bias" in tensors else w2.new_zeros(w2.shape[0])
    gate, up = gate_up(w13)
    return Expert(gate, up, w2, *gate_up(b13), b2)


def _forward(
    tensors: Mapping[str, torch.Tensor],
    decision: Decision,
    x: torch.Tensor,
    routing: Routing,
    matrix: Callable[[str, int], torch.Tensor],
    gate_up: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
) -> torch.Tensor:
    alpha = decision.call.swiglu_alpha if decision.call.swiglu_alpha is not None else 1.0
    result = torch.zeros(x.shape[0], tensors["w2_weight"].shape[1], dtype=torch.float64)
    for index in sorted({int(expert) for expert in routing.experts.flatten()}):
        token, slot = (routing.experts == index).nonzero(as_tuple=True)
        expert = _expert(tensors, index, matrix, gate_up)
        inputs = x[token]
        gate, up = inputs @ expert.gate.T + expert.gate_bias, inputs @ expert.up.T + expert.up_bias
        out = swiglu(gate, up, alpha, decision.call.swiglu_limit) @ expert.down.T + expert.down_bias
        result.index_add_(0, token, out * routing.weights[token, slot].unsqueeze(1))
    return result


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the relative L2 error: scale-free, so that a halved result cannot pass."""
    return float((found - wanted).norm() / wanted.norm())

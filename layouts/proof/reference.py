"""Reference MoE layer in float64, on plain and laid-out tensors.

The laid-out side fetches every byte through the layout's closed-form address, as a kernel does. It shares no code with
the copy plans that laid the bytes out, so that one proves the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch

from preshuffle.layouts.loader import layout_from, layout_of
from preshuffle.layouts.tensors import as_bytes, decode_values, multiply_by_scales
from preshuffle.registry import BoundLayout, Decision, Layout, LayoutError, TensorDecision
from preshuffle.registry.base.words import BITS, Role, TensorDtype
from preshuffle.registry.values.decision import CallDecision

WEIGHTS: Final[tuple[Role, Role]] = ("w13_weight", "w2_weight")


@dataclass(frozen=True, slots=True)
class Routing:
    """Experts and weights of each token, both ``[tokens, top_k]``."""

    experts: torch.Tensor
    weights: torch.Tensor


def random_routing(tokens: int, experts: int, top_k: int, seed: int = 0) -> Routing:
    """Return random experts with softmax weights for each token."""
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(tokens, experts, generator=random, dtype=torch.float64)
    best = scores.topk(top_k, dim=-1)
    return Routing(best.indices, best.values.softmax(dim=-1))


def swiglu(gate: torch.Tensor, up: torch.Tensor, alpha: float, limit: float | None) -> torch.Tensor:
    """Return gpt-oss's SwiGLU of gate and up.

    ``gate * sigmoid(alpha * gate) * (up + 1)``, both clamped at ``limit``.
    """
    if limit is not None:
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return gate * torch.sigmoid(alpha * gate) * (up + 1)


def addresses_of(bound: BoundLayout, expert: int, rows: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Return the addresses of units ``(expert, rows, k)``.

    ``BoundLayout.address`` on tensors that broadcast.
    """
    position = {"experts": torch.tensor(expert), "rows": rows, "k": k}
    parts = {dimension: torch.zeros_like(index, dtype=torch.int64) for dimension, index in position.items()}
    stride = 1
    for atom in reversed(bound.atoms):
        digit = torch.div(position[atom.dimension], atom.step, rounding_mode="floor") % atom.size
        parts[atom.dimension] += digit * stride
        stride *= atom.size
    return parts["experts"] + parts["rows"] + parts["k"]  # broadcast once, at the end


def fetch_expert(
    tensor: torch.Tensor, layout: str | Layout, shape: tuple[int, int, int], expert: int, rows: range | None = None
) -> torch.Tensor:
    """Gather one expert's plain bytes from laid-out ones.

    Returns ``uint8 [rows, K bytes]``, fetched one address at a time.

    Args:
        tensor: the laid-out tensor.
        layout: its layout.
        shape: its physical ``[experts, rows, K bytes]``.
        expert: which expert.
        rows: which of its rows; all by default.
    """
    bound = layout_of(layout).bind(*shape)
    wanted = rows or range(shape[1])
    positions = torch.arange(wanted.start, wanted.stop).unsqueeze(1)
    return as_bytes(tensor.detach()).cpu()[addresses_of(bound, expert, positions, torch.arange(shape[2]))]


def fetch_role(tensor: torch.Tensor, decided: TensorDecision, expert: int) -> torch.Tensor:
    """Gather one expert's bytes of a decided tensor.

    Returns ``uint8 [rows, K bytes]``, pads included, rows of gate first.

    int4 that was packed comes as one int8 for each value; a bias as rows of one number.
    """
    halves = 2 if decided.order else 1
    experts, live_rows = decided.logical_shape[:2]
    rows = live_rows + decided.pad.rows * halves
    flat = len(decided.physical_shape) == 2 and len(decided.logical_shape) == 3
    values = decided.physical_shape[-1] if len(decided.logical_shape) == 3 else 1
    packed = "pack_int4" in decided.steps
    width = values if packed else values * BITS[decided.dtype] // 8
    data = unpack_nibbles(as_bytes(tensor.detach()).cpu()) if packed else tensor
    layout = layout_from(decided)
    if layout.unit == "group" and not layout.pattern.splits_gate_up:  # tiles run over the experts
        total = decided.physical_shape[0] if flat else experts * rows
        found = fetch_expert(data, layout, (1, total, width), 0, range(expert * rows, (expert + 1) * rows))
    else:
        found = fetch_expert(data, layout, (experts, rows, width), expert)
    return torch.cat([found[0::2], found[1::2]]) if decided.order == "GUGU" else found


def unpack_nibbles(data: torch.Tensor) -> torch.Tensor:
    """Unpack int4 to int8, both as flat bytes.

    Of each four bytes the low nibbles come first, then the high ones.
    """
    fours = data.view(-1, 4)
    nibbles = torch.cat([fours & 0xF, fours >> 4], dim=1).view(-1).to(torch.int8)
    return torch.where(nibbles > 7, nibbles - 16, nibbles).view(torch.uint8)


@dataclass(frozen=True, slots=True)
class Expert:
    """One expert's weights and biases in float64.

    Gate and up ``[rows, hidden]``, down ``[hidden, rows]``.
    """

    gate: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor
    gate_bias: torch.Tensor
    up_bias: torch.Tensor
    down_bias: torch.Tensor


def plain_forward(
    tensors: Mapping[str, torch.Tensor], decision: Decision, x: torch.Tensor, routing: Routing
) -> torch.Tensor:
    """Run the layer on plain tensors: ``float64 [tokens, hidden]``.

    Args:
        tensors: one rank's roles as the checkpoint holds them; the scale of a scale is called like it with ``_2``.
        decision: says the row order, what shares a scale, and the activation's parameters.
        x: ``float64 [tokens, hidden]``.
        routing: of the tokens.
    """
    return _forward(decision, x, routing, lambda role, expert: _plain(tensors, decision, role, expert))


def laid_out_forward(
    tensors: Mapping[str, torch.Tensor], decision: Decision, x: torch.Tensor, routing: Routing
) -> torch.Tensor:
    """Run the layer on laid-out tensors.

    Every byte, pads included, is fetched through its closed-form address; returns ``float64 [tokens, hidden]``.
    """
    padded = torch.zeros(x.shape[0], decision.tensors["w13_weight"].physical_shape[2], dtype=torch.float64)
    padded[:, : x.shape[1]] = x
    result = _forward(decision, padded, routing, lambda role, expert: _laid(tensors, decision, role, expert))
    return result[:, : x.shape[1]]


Numbers = Callable[[Role, int], torch.Tensor | None]
"""One expert's numbers of a role, rows of gate first, in float64; None where the layer has not got it."""

_NAMES: Final[dict[torch.dtype, TensorDtype]] = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.float8_e4m3fn: "fp8_e4m3fn",
    torch.float8_e4m3fnuz: "fp8_e4m3fnuz",
}


def _plain(tensors: Mapping[str, torch.Tensor], decision: Decision, role: Role, expert: int) -> torch.Tensor | None:
    if role not in tensors or role not in decision.tensors:
        return None
    decided, live = decision.tensors[role], tensors[role][expert].detach().cpu().contiguous()
    live = live if live.dim() else live.view(1)  # one number for the whole tensor
    rows = live.shape[0]
    numbers = decode_values(as_bytes(live).view(rows, -1), _NAMES.get(live.dtype) or _name(decided))
    if decided.source_order == "GUGU":
        numbers = torch.cat([numbers[0::2], numbers[1::2]])
    second = tensors.get(f"{role}_2")
    if second is not None:
        factors = second[expert].detach().cpu().to(torch.float64).view(-1, 1)
        numbers = numbers * factors.repeat_interleave(rows // factors.shape[0], 0)
    return numbers


def _name(decided: TensorDecision) -> TensorDtype:
    """Return the checkpoint's dtype of bytes without a torch dtype."""
    if "pack_int4" in decided.steps:
        return "i8"
    return "fp8_e4m3fn" if decided.dtype.startswith("fp8") else decided.dtype


def _laid(tensors: Mapping[str, torch.Tensor], decision: Decision, role: Role, expert: int) -> torch.Tensor | None:
    if role not in tensors or role not in decision.tensors:
        return None
    decided = decision.tensors[role]
    if len(decided.logical_shape) == 1:
        return tensors[role][expert].detach().cpu().to(torch.float64).view(1, 1)
    return decode_values(
        fetch_role(tensors[role], decided, expert), "i8" if "pack_int4" in decided.steps else decided.dtype
    )


def _matrix(numbers: Numbers, decision: Decision, role: Role, expert: int) -> torch.Tensor:
    weight, scale = numbers(role, expert), numbers(f"{role}_scale", expert)  # type: ignore[arg-type]
    if weight is None:
        raise LayoutError(f"{role} is missing")
    if scale is None:
        return weight
    halves = 2 if decision.tensors[role].order else 1
    return multiply_by_scales(weight, scale, decision.call.quant_type, halves)


def _expert(numbers: Numbers, decision: Decision, expert: int) -> Expert:
    w13, w2 = (_matrix(numbers, decision, role, expert) for role in WEIGHTS)
    b13, b2 = numbers("w13_bias", expert), numbers("w2_bias", expert)
    b13 = w13.new_zeros(w13.shape[0]) if b13 is None else b13.view(-1)
    b2 = w2.new_zeros(w2.shape[0]) if b2 is None else b2.view(-1)
    half = w13.shape[0] // 2 if decision.tensors["w13_weight"].order else 0  # a model without a gate has up alone
    return Expert(w13[:half], w13[half:], w2, b13[:half], b13[half:], b2)


def _forward(decision: Decision, x: torch.Tensor, routing: Routing, numbers: Numbers) -> torch.Tensor:
    result: torch.Tensor | None = None
    for index in sorted({int(expert) for expert in routing.experts.flatten()}):
        token, slot = (routing.experts == index).nonzero(as_tuple=True)
        expert = _expert(numbers, decision, index)
        inputs = x[token]
        gate, up = inputs @ expert.gate.T + expert.gate_bias, inputs @ expert.up.T + expert.up_bias
        out = activate(gate, up, decision.call) @ expert.down.T + expert.down_bias
        if result is None:
            result = torch.zeros(x.shape[0], expert.down.shape[0], dtype=torch.float64)
        result.index_add_(0, token, out * routing.weights[token, slot].unsqueeze(1))
    return x.new_zeros(x.shape) if result is None else result


def activate(gate: torch.Tensor, up: torch.Tensor, call: CallDecision) -> torch.Tensor:
    """Apply a call's activation function.

    Silu stands for SiTUv2, whose formula is not known here, so that bytes can be proven.

    Args:
        gate: ``[tokens, rows]``, or without columns where the model has no gate.
        up: ``[tokens, rows]``.
        call: names the activation, and its parameters.
    """
    if not gate.shape[1]:
        return torch.nn.functional.silu(up)
    if call.activation == "Swiglu":
        return swiglu(gate, up, call.swiglu_alpha if call.swiglu_alpha is not None else 1.0, call.swiglu_limit)
    if call.activation == "Gelu":
        return torch.nn.functional.gelu(gate) * up
    return torch.nn.functional.silu(gate) * up


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the relative L2 error.

    It is free of scale, so that a halved result cannot pass.
    """
    return float((found - wanted).norm() / wanted.norm())

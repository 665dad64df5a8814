"""Proving that applied tensors are what their decision says, against the checkpoint's untouched bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from preshuffle.layouts.apply import TAG, inverse
from preshuffle.layouts.dtypes import VALUES_PER_ELEMENT, as_bytes
from preshuffle.layouts.reference import fetch, laid_out_forward, plain_forward, relative_error, route
from preshuffle.layouts.stamp import put_stamp, stamp_of
from preshuffle.registry import Decision
from preshuffle.registry.words import Role


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was proven, or was not."""

    name: str
    ok: bool
    detail: str


def prove(
    plain: Mapping[str, torch.Tensor], laid: Mapping[str, torch.Tensor], decision: Decision, *, tokens: int = 4
) -> tuple[Check, ...]:
    """Prove one rank's laid-out tensors.

    Args:
        plain: what the checkpoint holds for the rank; not changed.
        laid: what ``apply`` made of a copy of it; not changed.
        decision: what was applied.
        tokens: tokens of the reference forward.

    Returns:
        Whether shapes, tags, pads, every live byte of the first and last expert (through the closed-form address), the
        inverse and a float64 forward agree.
    """
    return (
        _shapes(laid, decision),
        _tags(laid, decision),
        _bytes(plain, laid, decision),
        _inverse(plain, laid, decision),
        _forward(plain, laid, decision, tokens),
    )


def _shapes(laid: Mapping[str, torch.Tensor], decision: Decision) -> Check:
    wrong = []
    for role, decided in decision.tensors.items():
        found = tuple(laid[role].shape)
        per_element = VALUES_PER_ELEMENT.get(decided.dtype, 1)
        values = (*found[:2], found[2] * per_element) if len(found) == 3 else found
        if values != decided.physical_shape:
            wrong.append(f"{role} {values}")
    return Check("shapes", not wrong, "; ".join(wrong) or f"{len(decision.tensors)} tensors as decided")


def _tags(laid: Mapping[str, torch.Tensor], decision: Decision) -> Check:
    wrong = [
        role
        for role, decided in decision.tensors.items()
        if bool(getattr(laid[role], TAG, False)) != decided.is_shuffled or stamp_of(laid[role]) is None
    ]
    tagged = ", ".join(role for role, decided in decision.tensors.items() if decided.is_shuffled)
    return Check("tags", not wrong, f"wrong: {', '.join(wrong)}" if wrong else f"{TAG} on {tagged}")


def _bytes(plain: Mapping[str, torch.Tensor], laid: Mapping[str, torch.Tensor], decision: Decision) -> Check:
    compared = 0
    for role, decided in decision.tensors.items():
        live, held = _with_k(plain[role]), _with_k(laid[role])
        if live.dtype != held.dtype and held.dtype == torch.float32:
            live = live.to(torch.float32)
        item = held.element_size()
        shape = (held.shape[0], held.shape[1], held.shape[2] * item)
        for expert in {0, held.shape[0] - 1}:
            wanted = _expected(role, live[expert], shape, decision)
            found = fetch(held, decided.layout, shape, expert)
            if not torch.equal(found, wanted):
                return Check("bytes", False, f"{role}: {int((found != wanted).sum())} bytes of expert {expert} differ")
            compared += found.numel()
    return Check("bytes", True, f"{compared} bytes found at their closed-form addresses, pads included")


def _expected(role: Role, live: torch.Tensor, shape: tuple[int, int, int], decision: Decision) -> torch.Tensor:
    """One expert's plain bytes in layout order: GGUU rows, each half padded, K padded."""
    decided = decision.tensors[role]
    data = as_bytes(live.contiguous()).view(live.shape[0], -1)
    halves = 2 if decided.order else 1
    if decided.order and decided.source_order == "GUGU":
        data = torch.cat([data[0::2], data[1::2]])
    wanted = torch.full((halves, shape[1] // halves, shape[2]), decided.fill, dtype=torch.uint8)
    wanted[:, : data.shape[0] // halves, : data.shape[1]] = data.view(halves, -1, data.shape[1])
    return wanted.view(shape[1], shape[2])


def _with_k(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    return tensor.unsqueeze(-1) if tensor.dim() == 2 else tensor


def _inverse(plain: Mapping[str, torch.Tensor], laid: Mapping[str, torch.Tensor], decision: Decision) -> Check:
    copies: dict[str, torch.Tensor] = {}
    for role in decision.tensors:
        stamp = stamp_of(laid[role])
        copies[role] = laid[role].detach().clone()
        if stamp is None:
            return Check("inverse", False, f"{role} has no stamp")
        put_stamp(copies[role], stamp)
    inverse(copies, decision)
    wrong = [role for role in decision.tensors if not _same(copies[role], plain[role])]
    return Check("inverse", not wrong, f"differs: {', '.join(wrong)}" if wrong else "the checkpoint's bytes come back")


def _same(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return found.dtype == wanted.dtype and torch.equal(as_bytes(found), as_bytes(wanted.to(found.device)))


def _forward(
    plain: Mapping[str, torch.Tensor], laid: Mapping[str, torch.Tensor], decision: Decision, tokens: int
) -> Check:
    experts = plain["w13_weight"].shape[0]
    hidden = decision.tensors["w2_weight"].logical_shape[1]
    x = torch.randn(tokens, hidden, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    routing = route(tokens, experts, min(2, experts))
    wanted = plain_forward(plain, decision, x, routing)
    error = relative_error(laid_out_forward(laid, decision, x, routing), wanted)
    return Check("forward", error < 1e-12, f"float64 MoE through addresses, relative error {error:.1e}")

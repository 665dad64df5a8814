"""Checks of applied tensors against the checkpoint's untouched bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

from preshuffle.layouts.loader import AITER_TAG, RoleTensors, inverse, layout_from, torch_shape
from preshuffle.layouts.proof.reference import (
    fetch_expert,
    fetch_role,
    laid_out_forward,
    plain_forward,
    random_routing,
    relative_error,
)
from preshuffle.layouts.proof.reference_steps import apply_reference_steps
from preshuffle.layouts.stamps import put_stamp, stamp_of
from preshuffle.layouts.tensors import as_bytes
from preshuffle.registry import Decision, LayoutError, TensorDecision
from preshuffle.registry.base.words import ROLES

EXACT: Final = 1e-12
"""Relative error of two float64 sums of the same numbers."""
REQUANTIZED: Final = 0.1
"""How far a layer may move whose gate and up got one scale: half a step of fp8's three bits, with room."""


@dataclass(frozen=True, slots=True)
class Check:
    """Result of one proof."""

    name: str
    ok: bool
    detail: str


def prove(
    plain: Mapping[str, torch.Tensor], laid: Mapping[str, torch.Tensor], decision: Decision, *, tokens: int = 4
) -> tuple[Check, ...]:
    """Prove one rank's laid-out tensors.

    Args:
        plain: what the checkpoint holds for the rank, under any engine's names; not changed.
        laid: what ``apply`` made of a copy of it; not changed.
        decision: what was applied.
        tokens: tokens of the reference forward.

    Returns:
        Whether shapes, tags, pads, every live byte of the first and last expert (through the closed-form address), the
        inverse and a float64 forward agree. Steps are done once more, in another way. Where a step cannot be undone the
        inverse is a refusal, and that is what is checked.
    """
    before, after = _by_role(plain, decision), _by_role(laid)
    wanted = apply_reference_steps(before, decision)
    return (
        _shapes(after, decision),
        _tags(after, decision),
        _bytes(wanted, after, decision),
        _inverse(before, after, decision),
        _forward(before, wanted, after, decision, tokens),
    )


def _by_role(tensors: Mapping[str, torch.Tensor], decision: Decision | None = None) -> dict[str, torch.Tensor]:
    """Return the tensors by role, with the scales that a decision says an engine makes.

    The scale of a scale is called like it with ``_2``.
    """
    found = RoleTensors(dict(tensors))
    if decision is not None:
        found.make_defaults(decision)
    named: dict[str, torch.Tensor] = {role: found[role] for role in ROLES if role in found.names}
    seconds = {f"{role}_2": found.second(role) for role in ROLES}
    return {**named, **{name: tensor for name, tensor in seconds.items() if tensor is not None}}


def _present(laid: Mapping[str, torch.Tensor], decision: Decision) -> list[tuple[str, TensorDecision]]:
    return [(role, decided) for role, decided in decision.tensors.items() if role in laid]


def _shapes(laid: Mapping[str, torch.Tensor], decision: Decision) -> Check:
    wrong = [f"{role} is missing" for role in decision.tensors if role not in laid and "input_scale" not in role]
    for role, decided in _present(laid, decision):
        found, wanted = tuple(laid[role].shape), torch_shape(_shape_of(decided), decided, laid[role].dtype)
        if found not in (wanted, wanted[:-1] if wanted[-1:] == (1,) and len(wanted) > 1 else wanted):
            wrong.append(f"{role} {found}, not {wanted}")
    return Check("shapes", not wrong, "; ".join(wrong) or f"{len(_present(laid, decision))} tensors as decided")


def _shape_of(decided: TensorDecision) -> tuple[int, ...]:
    return decided.passed_shape or decided.physical_shape


def _tags(laid: Mapping[str, torch.Tensor], decision: Decision) -> Check:
    wrong = [
        role
        for role, decided in _present(laid, decision)
        if bool(getattr(laid[role], AITER_TAG, False)) != decided.is_shuffled or stamp_of(laid[role]) is None
    ]
    tagged = ", ".join(role for role, decided in decision.tensors.items() if decided.is_shuffled) or "nothing"
    return Check("tags", not wrong, f"wrong: {', '.join(wrong)}" if wrong else f"{AITER_TAG} on {tagged}")


def _bytes(wanted: Mapping[str, torch.Tensor], laid: Mapping[str, torch.Tensor], decision: Decision) -> Check:
    compared = 0
    for role, decided in _present(laid, decision):
        if len(decided.logical_shape) == 1:
            if not torch.equal(wanted[role], laid[role].detach().cpu()):
                return Check("bytes", False, f"{role} is {laid[role].tolist()}, not {wanted[role].tolist()}")
            compared += laid[role].numel() * laid[role].element_size()
            continue
        for expert in {0, decided.logical_shape[0] - 1}:
            found = fetch_role(laid[role], decided, expert)
            live = _padded_halves(wanted[role][expert], found, decided)
            if not torch.equal(found, live):
                return Check("bytes", False, f"{role}: {int((found != live).sum())} bytes of expert {expert} differ")
            compared += found.numel()
        tail = _tail(laid[role], decided)
        if not bool((tail == decided.fill).all()):
            return Check("bytes", False, f"{role}: the padded tail holds other bytes than {decided.fill}")
        compared += tail.numel()
    return Check("bytes", True, f"{compared} bytes found at their closed-form addresses, pads included")


def _padded_halves(live: torch.Tensor, like: torch.Tensor, decided: TensorDecision) -> torch.Tensor:
    """Return one expert's plain bytes as padded halves.

    Rows of gate come first; K is padded, too.
    """
    data = as_bytes(live.contiguous()).view(live.shape[0], -1)
    halves = 2 if decided.order else 1
    if decided.order and decided.source_order == "GUGU":
        data = torch.cat([data[0::2], data[1::2]])
    padded = torch.full((halves, like.shape[0] // halves, like.shape[1]), decided.fill, dtype=torch.uint8)
    if decided.tail is not None:
        padded[:, :, decided.tail.first_k :] = decided.tail.fill
    padded[:, : data.shape[0] // halves, : data.shape[1]] = data.view(halves, -1, data.shape[1])
    return padded.view(like.shape)


def _tail(tensor: torch.Tensor, decided: TensorDecision) -> torch.Tensor:
    """Return the padded tail of a flattened scale.

    Empty where each expert is whole.
    """
    if len(decided.physical_shape) != 2 or len(decided.logical_shape) != 3:
        return torch.empty(0, dtype=torch.uint8)
    total, k = decided.physical_shape
    experts, rows = decided.logical_shape[:2]
    used = experts * (rows + decided.pad.rows * (2 if decided.order else 1))
    if used == total or layout_from(decided).pattern.splits_gate_up:
        return torch.empty(0, dtype=torch.uint8)
    return fetch_expert(tensor, layout_from(decided), (1, total, k), 0, range(used, total))


def _inverse(plain: Mapping[str, torch.Tensor], laid: Mapping[str, torch.Tensor], decision: Decision) -> Check:
    copies: dict[str, torch.Tensor] = {}
    lost: list[str] = []
    for role, _ in _present(laid, decision):
        stamp = stamp_of(laid[role])
        copies[role] = as_bytes(laid[role].detach()).clone().view(laid[role].dtype).view(laid[role].shape)
        if stamp is None:
            return Check("inverse", False, f"{role} has no stamp")
        put_stamp(copies[role], stamp)
        lost += [f"{step} on {role}" for step in stamp.lost]
    try:
        inverse(copies, decision)
    except LayoutError as error:
        return Check("inverse", bool(lost), f"refused: {error}")
    if lost:
        return Check("inverse", False, f"inverted steps that lose values: {', '.join(lost)}")
    wrong = [role for role in copies if not _same_bytes(copies[role], plain[role])]
    return Check("inverse", not wrong, f"differs: {', '.join(wrong)}" if wrong else "the checkpoint's bytes come back")


def _same_bytes(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return found.dtype == wanted.dtype and torch.equal(as_bytes(found), as_bytes(wanted.to(found.device)))


def _forward(
    plain: Mapping[str, torch.Tensor],
    wanted: Mapping[str, torch.Tensor],
    laid: Mapping[str, torch.Tensor],
    decision: Decision,
    tokens: int,
) -> Check:
    experts, hidden, _ = decision.tensors["w2_weight"].logical_shape
    x = torch.randn(tokens, hidden, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    routing = random_routing(tokens, experts, min(2, experts))
    result = laid_out_forward(laid, decision, x, routing)
    error = relative_error(result, plain_forward(wanted, decision, x, routing))
    text = f"float64 MoE through addresses, relative error {error:.1e}"
    if not any(decided.steps for decided in decision.tensors.values()):
        return Check("forward", error < EXACT, text)
    moved = relative_error(result, plain_forward(plain, decision, x, routing))
    requantized = any("requantize_max" in decided.steps for decided in decision.tensors.values())
    ok = error < EXACT and moved < (REQUANTIZED if requantized else EXACT)
    return Check("forward", ok, f"{text}; from the checkpoint's own values {moved:.1e}")

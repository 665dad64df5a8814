"""Reference implementation of a recipe's steps on plain tensors.

Laid-out bytes are proven against it.

It shares no code with ``loader.steps``, which does the same within bounded memory on the tensors that are laid out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from preshuffle.registry import Decision, TensorDecision
from preshuffle.registry.base.words import Role

_FLOATS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def apply_reference_steps(plain: Mapping[str, torch.Tensor], decision: Decision) -> dict[str, torch.Tensor]:
    """Return one rank's plain tensors after the recipe's steps.

    Rows stay as they were; values are those that the kernel gets.

    Args:
        plain: by role; the scale of a scale is called like it with ``_2``, and is folded in.
        decision: names the steps.
    """
    return {
        role: _apply_steps(role, plain, decided) if decided.steps else _cast(plain[role].detach().cpu(), decided)
        for role, decided in decision.tensors.items()
        if role in plain
    }


def _apply_steps(role: Role, plain: Mapping[str, torch.Tensor], decided: TensorDecision) -> torch.Tensor:
    tensor = plain[role].detach().cpu().clone()
    if "fnuz" in decided.steps:
        tensor = _fnuz(role, tensor)
    if "fold" in decided.steps and f"{role}_2" in plain:
        tensor = tensor.to(torch.float32) * _expand_by_row(plain[f"{role}_2"].detach().cpu(), tensor, decided)
    if "fold_max" in decided.steps and f"{role}_2" in plain:
        second = plain[f"{role}_2"].detach().cpu().view(tensor.shape[0], -1).amax(1)
        tensor = tensor.to(torch.float32) * _expand_by_row(second, tensor, decided)
    if "requantize_max" in decided.steps and role.endswith("_weight"):
        scales = plain.get(f"{role}_scale_2", plain[f"{role}_scale"]).detach().cpu().to(torch.float32)
        scales = scales * 2 if "fnuz" in decided.steps else scales
        if scales.dim() > 1:
            tensor = _requantize(tensor, _expand_by_row(scales, tensor, decided), scales.amax(1))
    elif "requantize_max" in decided.steps:
        tensor = tensor.to(torch.float32).view(tensor.shape[0], -1).amax(1)
    if "reduce_max" in decided.steps:
        tensor = tensor.to(torch.float32).max().view(1)
    return _cast(tensor, decided)


def _fnuz(role: Role, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype in (torch.float32, torch.bfloat16, torch.float16):
        return tensor * 2
    raw = tensor.view(torch.uint8)
    if role.endswith("_weight"):
        return torch.where(raw == 0x80, 0, raw).to(torch.uint8).view(torch.float8_e4m3fnuz)
    return torch.where((raw == 0) | (raw >= 0xFE), raw, raw + 1).to(torch.uint8).view(tensor.dtype)


def _expand_by_row(numbers: torch.Tensor, like: torch.Tensor, decided: TensorDecision) -> torch.Tensor:
    """Expand numbers per expert, or per half, to ``[E, rows, 1]``.

    Rows are in the checkpoint's order.
    """
    experts, rows = like.shape[:2]
    numbers = numbers.to(torch.float32).view(experts, -1)
    each = rows // numbers.shape[1]
    by_row = numbers.repeat(1, each) if decided.source_order == "GUGU" else numbers.repeat_interleave(each, 1)
    return by_row.view(experts, rows, *(1 for _ in like.shape[2:]))


def _requantize(weight: torch.Tensor, scales: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """Requantize values with their expert's largest scale.

    Values that have that scale already stay.
    """
    limit = torch.finfo(weight.dtype).max
    wanted = largest.view(-1, 1, 1)
    values = (weight.to(torch.float32) * scales / wanted).clamp(-limit, limit).to(weight.dtype)
    same = (scales == wanted).expand(weight.shape)
    return torch.where(same, weight.view(torch.uint8), values.view(torch.uint8)).view(weight.dtype)


def _cast(tensor: torch.Tensor, decided: TensorDecision) -> torch.Tensor:
    return tensor.to(_FLOATS[decided.dtype]) if decided.dtype in _FLOATS else tensor

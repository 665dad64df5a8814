"""Steps of a recipe on values, before bytes are laid out.

They are checked first, and undone where that is possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import torch

from preshuffle.layouts.tensors import FLOAT_DTYPES, dtype_name
from preshuffle.registry import LayoutError, TensorDecision
from preshuffle.registry.base.words import Role, RowOrder, Step

NEGATIVE_ZERO: Final = 0x80
"""In e4m3fn; the same byte is NaN in e4m3fnuz, which has no negative zero."""
_NAN_OF_FN: Final = 0x7F
_E8M0_LARGEST: Final = 0xFE
_E8M0_NAN: Final = 0xFF
_LOW: Final = 0x7F7F7F7F7F7F7F7F
_HIGH: Final = -0x7F7F7F7F7F7F7F80
"""Eight bytes of 0x7F, and of 0x80, as int64."""
_TORCH_FP8: Final = {"fp8_e4m3fn": torch.float8_e4m3fn, "fp8_e4m3fnuz": torch.float8_e4m3fnuz}
REDUCTIONS: Final[frozenset[Step]] = frozenset({"requantize_max", "reduce_max"})


@dataclass(frozen=True, slots=True)
class ValueSteps:
    """Steps on one tensor, with the other tensors' values they need.

    Attributes:
        dtype: in which the values are after the steps (of a weight).
        order: the plain rows' order; None where they are not those of gate and up.
        shards: float32 ``[experts, halves]``: w13's own scales, as they are before they become one (requantize_max).
        second: float32 ``[experts, 1]`` or ``[experts, halves]``: the second-level scale (fold, fold_max).
    """

    role: Role
    steps: tuple[Step, ...]
    dtype: torch.dtype
    order: RowOrder | None = None
    shards: torch.Tensor | None = None
    second: torch.Tensor | None = None

    @property
    def changes(self) -> bool:
        """Whether the steps change single values.

        Reductions of many values to one are not meant (``reduces``).
        """
        return bool(self.steps) and any(step in _CHANGES for step in self.steps) and not self.reduces

    @property
    def reduces(self) -> bool:
        """Whether the steps reduce a scale to fewer numbers.

        To one for each expert, or one in all.
        """
        return bool(self.steps) and self.role.endswith("_scale") and bool(REDUCTIONS & set(self.steps))

    def change_(self, plain: torch.Tensor) -> None:
        """Apply the steps in place, one expert at a time."""
        for step in self.steps:
            if step in _CHANGES:
                for expert in range(plain.shape[0]):
                    _CHANGES[step](self, plain, expert)

    def reduced(self, plain: torch.Tensor) -> torch.Tensor:
        """Return a reduced scale as float32 ``[experts]`` or ``[1]``.

        The plain tensor stays.
        """
        numbers = plain.detach().to(torch.float32) * (2 if "fnuz" in self.steps else 1)
        if "reduce_max" in self.steps:
            return numbers.max().view(1)
        return numbers.view(plain.shape[0], -1).amax(1)

    def restore_(self, plain: torch.Tensor) -> None:
        """Undo the steps that changed single values, in place.

        Those that lost something were refused before.
        """
        if "fnuz" in self.steps and not self.role.endswith("_weight"):
            for expert in plain:
                _halve_(expert)

    def expanded(self, plain: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """Undo a reduction of equal numbers."""
        numbers = plain.detach().clone()
        self.restore_(numbers)
        width = max(1, torch.Size(shape).numel() // numbers.numel())
        return numbers.view(-1, 1).expand(-1, width).reshape(shape)


def prepare_steps(
    role: Role,
    decided: TensorDecision,
    plain: torch.Tensor,
    scale: torch.Tensor | None,
    second: torch.Tensor | None,
) -> ValueSteps:
    """Collect what the steps on one tensor need.

    Args:
        role: the tensor's.
        decided: its decision.
        plain: the tensor itself.
        scale: a weight's scale of gate and of up (requantize_max).
        second: a scale's second-level scale (fold, fold_max).

    Raises:
        LayoutError: something is missing, or of another shape.
    """
    experts, halves = plain.shape[0] if plain.dim() else 1, 2 if decided.order else 1
    dtype = _TORCH_FP8.get(decided.dtype, plain.dtype)
    shards = None
    if "requantize_max" in decided.steps and role.endswith("_weight"):
        shards = _numbers(f"{role}_scale", scale, experts, halves, "requantize_max")
        if "fnuz" in decided.steps:
            shards = shards * 2
    if "fold" in decided.steps:
        second = _numbers(f"{role}_2", second, experts, halves, "fold")
    elif "fold_max" in decided.steps:
        second = _numbers(f"{role}_2", second, experts, halves, "fold_max").amax(1, keepdim=True)
    return ValueSteps(role, decided.steps, dtype, decided.source_order, shards, second)


def check_reduced(role: Role, decided: TensorDecision, plain: torch.Tensor) -> None:
    """Check dtype and shape of a scale that steps reduce.

    Raises:
        LayoutError: another dtype or shape than float ``[experts]`` or ``[experts, shards]``.
    """
    experts = decided.logical_shape[0] if "reduce_max" not in decided.steps else None
    shape = tuple(plain.shape)
    if plain.dtype not in FLOAT_DTYPES:
        raise LayoutError(f"{role} is {dtype_name(plain.dtype)}; valid: {', '.join(map(dtype_name, FLOAT_DTYPES))}")
    if not plain.numel() or (experts is not None and (not shape or shape[0] != experts or plain.numel() > 2 * experts)):
        wanted = f"({experts},) or ({experts}, 2)" if experts is not None else "any with numbers in it"
        raise LayoutError(f"{role} has shape {shape}; valid: {wanted}")


def find_lossy_steps(values: ValueSteps, plain: torch.Tensor) -> tuple[Step, ...]:
    """Check every value; return the steps that lose information.

    Those cannot be undone on these values.

    Raises:
        LayoutError: a step cannot be done on a value. Nothing has changed then.
    """
    if values.reduces:
        return _check_reduction(values, plain)
    lost: list[Step] = []
    for step in values.steps:
        loses = _LOSSES[step]
        found = [loses(values, part) for part in _parts(plain)]
        if any(found):
            lost.append(step)
    return tuple(lost)


def apply_steps_to_part(
    role: Role, steps: tuple[Step, ...], rows: torch.Tensor
) -> tuple[torch.Tensor, tuple[Step, ...]]:
    """Apply steps to some plain rows of one expert.

    Returns new rows, and the steps that lost something.

    Raises:
        LayoutError: a step needs more than these rows, or cannot be done on them.
    """
    if not steps:
        return rows, ()
    for step in steps:
        if step != "fnuz":
            raise LayoutError(f"{role}: the step {step} needs the whole layer, not a part; apply the decision again")
    values = ValueSteps(role, steps, rows.dtype)
    lost = find_lossy_steps(values, rows)
    changed = rows.clone()
    values.change_(changed.unsqueeze(0))
    return changed, lost


def _numbers(name: str, scale: torch.Tensor | None, experts: int, halves: int, step: Step) -> torch.Tensor:
    if scale is None:
        raise LayoutError(f"{name} is missing, which the step {step} needs")
    if scale.dtype not in FLOAT_DTYPES:
        raise LayoutError(f"{name} is {dtype_name(scale.dtype)}; valid: {', '.join(map(dtype_name, FLOAT_DTYPES))}")
    if scale.numel() not in (experts, experts * halves) or not scale.dim() or scale.shape[0] != experts:
        valid = f"({experts},)" if halves == 1 else f"({experts},) or ({experts}, {halves})"
        raise LayoutError(f"{name} has shape {tuple(scale.shape)}; valid: {valid}")
    numbers = scale.detach().to(torch.float32, copy=True).view(experts, -1)
    if not bool(numbers.isfinite().all()):
        raise LayoutError(f"{name} holds numbers that are not finite, which the step {step} would spread")
    return numbers


def _parts(plain: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield one expert at a time.

    So that the check needs no memory.
    """
    return iter(plain.detach() if plain.dim() > 1 else plain.detach().view(1, -1))


def _shard(values: ValueSteps, part: torch.Tensor, half: int, halves: int) -> torch.Tensor:
    """Return the rows of gate or of up in one expert's rows."""
    if halves == 1:
        return part
    if values.order == "GUGU":
        return part[half::halves]
    rows = part.shape[0] // halves
    return part[half * rows : (half + 1) * rows]


def _fnuz_(values: ValueSteps, plain: torch.Tensor, expert: int) -> None:
    part = plain.detach()[expert]
    if part.dtype in FLOAT_DTYPES:
        part.mul_(2)
        return
    data = part.view(torch.uint8)
    if values.role.endswith("_weight"):
        _zero_negative_zeros_(data)
    else:  # an exponent: twice as large is one more
        data.add_((data != 0) & (data < _E8M0_LARGEST))


def _zero_negative_zeros_(data: torch.Tensor) -> None:
    """Replace every byte 0x80 with zero, in place.

    Eight at once where they are aligned: comparing single bytes is slow.
    """
    if int(data.view(torch.int8).min()) != -NEGATIVE_ZERO:
        return
    if data.numel() % 8 or data.data_ptr() % 8 or data.storage_offset() % 8 or not data.is_contiguous():
        data.masked_fill_(data == NEGATIVE_ZERO, 0)
        return
    words = data.view(-1).view(torch.int64)
    marks = words ^ _HIGH  # a byte of zero where 0x80 was
    marks |= (marks & _LOW).add_(_LOW)  # its high bit is set unless all of the byte's bits are zero; nothing is carried
    marks |= _LOW
    words ^= marks.bitwise_not_()


def _halve_(part: torch.Tensor) -> None:
    if part.dtype in FLOAT_DTYPES:
        part.mul_(0.5)
        return
    data = part.view(torch.uint8)
    data.sub_(((data != 0) & (data != _E8M0_NAN)).to(torch.uint8))


def _requantize_(values: ValueSteps, plain: torch.Tensor, expert: int) -> None:
    """Requantize every shard of one expert with the largest scale.

    In float32; a shard that has that scale stays.
    """
    if values.shards is None:
        return
    scales = values.shards[expert]
    largest, limit = scales.max(), torch.finfo(values.dtype).max
    for half, scale in enumerate(scales):
        if scale != largest:
            shard = _shard(values, plain.detach()[expert].view(values.dtype), half, len(scales))
            numbers = shard.to(torch.float32) * scale / largest
            shard.copy_(numbers.clamp_(-limit, limit).to(values.dtype))


def _fold_(values: ValueSteps, plain: torch.Tensor, expert: int) -> None:
    if values.second is None:
        return
    for half, scale in enumerate(values.second[expert]):
        shard = _shard(values, plain.detach()[expert], half, values.second.shape[1])
        shard.copy_(shard.to(torch.float32) * scale)


_CHANGES: Final[dict[Step, Callable[[ValueSteps, torch.Tensor, int], None]]] = {
    "fnuz": _fnuz_,
    "requantize_max": _requantize_,
    "fold": _fold_,
    "fold_max": _fold_,
}


def _loses_fnuz(values: ValueSteps, part: torch.Tensor) -> bool:
    """Return whether halving would not restore the values.

    NaN and an overflow are refused.
    """
    if part.dtype in FLOAT_DTYPES:
        if bool((part.isfinite() & ~(part * 2).isfinite()).any()):
            raise LayoutError(f"{values.role} holds numbers whose double is no {dtype_name(part.dtype)}: the step fnuz")
        return False
    data = part.view(torch.uint8)
    if not data.numel():
        return False
    largest = int(data.max())
    if not values.role.endswith("_weight"):
        return largest == _E8M0_LARGEST or (largest == _E8M0_NAN and bool((data == _E8M0_LARGEST).any()))
    low, high = data.view(torch.int8).aminmax()  # extremes are found faster than single bytes are compared
    if int(high) == _NAN_OF_FN or largest == _NAN_OF_FN | NEGATIVE_ZERO:
        raise LayoutError(f"{values.role} holds NaN, which the step fnuz would make a number")
    return int(low) == -NEGATIVE_ZERO


def _loses_requantize(values: ValueSteps, part: torch.Tensor) -> bool:
    return values.shards is not None and bool((values.shards != values.shards[:, :1]).any())


def _loses_fold(values: ValueSteps, part: torch.Tensor) -> bool:
    return values.second is not None and bool((values.second != 1).any())


def _loses_pack(values: ValueSteps, part: torch.Tensor) -> bool:
    if part.numel() and not -8 <= int(part.min()) <= int(part.max()) <= 7:
        found = f"{int(part.min())}..{int(part.max())}"
        raise LayoutError(f"{values.role} holds values {found}; int4 is -8..7, which the step pack_int4 needs")
    return False


def _loses_reduce(values: ValueSteps, part: torch.Tensor) -> bool:
    return False


_LOSSES: Final[dict[Step, Callable[[ValueSteps, torch.Tensor], bool]]] = {
    "fnuz": _loses_fnuz,
    "requantize_max": _loses_requantize,
    "reduce_max": _loses_reduce,
    "fold": _loses_fold,
    "fold_max": _loses_fold,
    "pack_int4": _loses_pack,
}


def _check_reduction(values: ValueSteps, plain: torch.Tensor) -> tuple[Step, ...]:
    numbers = plain.detach().to(torch.float32).reshape(1 if "reduce_max" in values.steps else plain.shape[0], -1)
    factor = 2 if "fnuz" in values.steps else 1
    if not bool((numbers * factor).isfinite().all()):
        raise LayoutError(f"{values.role} holds numbers that are not finite, or whose double is not")
    step: Step = "reduce_max" if "reduce_max" in values.steps else "requantize_max"
    return (step,) if bool((numbers != numbers[:, :1]).any()) else ()

"""Sampled experts of a layer, copied before and compared after its conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import torch

from preshuffle.layouts.loader import AITER_TAG, RoleTensors, Target, apply, flat_rows_of
from preshuffle.layouts.tensors import ACCEPTED_DTYPES
from preshuffle.registry import Decision, LayoutError, TensorDecision
from preshuffle.registry.base.frozen import FrozenDict
from preshuffle.registry.base.words import STEPS, Role, Step

MOST_BYTES: Final = 128 << 20
"""Bytes that the samples of one layer may take."""
_OF_MORE: Final[frozenset[Step]] = frozenset(("requantize_max", "reduce_max", "fold", "fold_max"))
"""Steps whose bytes depend on other tensors, on all experts, or on how the engine rounds."""


@dataclass(frozen=True, slots=True)
class ExpertComparison:
    """What comparing sampled experts of one tensor found.

    Attributes:
        reasons: in which ways it differs, or why it was not compared.
        same_bytes: whether the bytes are the registry's, whatever else differs; None where they were not compared.
        laid_out: the engine's bytes of the sampled experts, where they differ.
    """

    role: Role
    verdict: Literal["equal", "differs", "not compared"]
    reasons: tuple[str, ...] = ()
    same_bytes: bool | None = None
    laid_out: torch.Tensor | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ExpertSamples:
    """Copies of some experts of a layer, before the engine converts it.

    Attributes:
        experts: their numbers on this rank.
        count: how many experts the rank holds.
        plain: rows as the layer had them, by role.
        skipped: why a tensor has no sample.
    """

    decision: Decision
    last_rank: bool
    experts: tuple[int, ...]
    count: int
    plain: Mapping[Role, torch.Tensor]
    skipped: Mapping[Role, str]


@torch.no_grad()
def take_samples(
    layer: Target, decision: Decision, *, last_rank: bool = False, most_bytes: int = MOST_BYTES
) -> ExpertSamples:
    """Copy the first and the last expert of each comparable tensor.

    One is comparable where its experts are laid out independently of each other.

    Args:
        layer: with its plain weights.
        decision: how they must lie afterwards.
        last_rank: the tensors are those of the last tensor-parallel rank, which may have less.
        most_bytes: what the copies may take; where two experts are too much, one is taken, or none.
    """
    tensors = RoleTensors(layer)
    skipped = {role: why for role, decided in decision.tensors.items() if (why := obstacle(role, decided, tensors))}
    usable = {role: tensors[role].detach() for role in decision.tensors if role not in skipped}
    count = next((tensor.shape[0] for tensor in usable.values()), 0)
    each = sum(tensor.numel() * tensor.element_size() // count for tensor in usable.values())
    numbers = sorted({0, count - 1})[: most_bytes // each if each else 0]
    if not numbers:
        skipped |= dict.fromkeys(usable, f"one expert takes more than {most_bytes} bytes")
        usable = {}
    plain = {role: _copy(tensor, numbers) for role, tensor in usable.items()}
    return ExpertSamples(decision, last_rank, tuple(numbers), count, plain, skipped)


@torch.no_grad()
def compare_samples(layer: Target, samples: ExpertSamples) -> tuple[ExpertComparison, ...]:
    """Compare a converted layer with samples that are laid out as decided.

    AITER's tags, dtypes, sizes and the bytes of the sampled experts are compared.
    """
    compared = [ExpertComparison(role, "not compared", (why,)) for role, why in samples.skipped.items()]
    if not samples.plain:
        return tuple(compared)
    wanted: dict[str, torch.Tensor] = {
        role: tensor.view(torch.uint8).clone().view(tensor.dtype) for role, tensor in samples.plain.items()
    }
    decision = _of_experts(samples)
    try:
        # what is wrong with the decision is told in the report: bytes are compared all the same
        allowed = [finding.code for finding in decision.findings]
        apply(wanted, decision, backend="native", last_rank=samples.last_rank, pads="overwrite", allow=allowed)
    except LayoutError as error:
        reason = (str(error),)
        return (*compared, *(ExpertComparison(role, "not compared", reason) for role in samples.plain))
    tensors = RoleTensors(layer)
    for role in samples.plain:
        decided = decision.tensors[role]
        if role in tensors.names:
            compared.append(_compare(role, decided, wanted[role], tensors[role].detach(), tensors[role], samples))
        else:
            why = "the converted layer has no tensor of this role"
            compared.append(ExpertComparison(role, "not compared", (why,)))
    return tuple(compared)


def obstacle(role: Role, decided: TensorDecision, tensors: RoleTensors) -> str | None:
    """Return why experts of a tensor cannot be compared on their own.

    None if they can.
    """
    if role not in tensors.names:
        return "the layer has no tensor of this role"
    tensor = tensors[role]
    steps = _OF_MORE & set(decided.steps)
    if steps:
        return f"its values are changed: {'; '.join(STEPS[step] for step in sorted(steps))}"
    if flat_rows_of(decided) is not None:
        return "its tiles or its pad run over several experts"
    if decided.default is not None:
        return "the engine makes it itself"
    if not tensor.dim() or tensor.shape[0] != decided.logical_shape[0]:
        return f"its shape {tuple(tensor.shape)} does not begin with {decided.logical_shape[0]} experts"
    return "it is on the meta device" if tensor.device.type == "meta" else None


def form_of(
    role: Role,
    decided: TensorDecision,
    dtype: torch.dtype,
    size: tuple[int, tuple[int, ...]],
    found: torch.Tensor,
    tagged: torch.Tensor,
) -> list[str] | ExpertComparison:
    """Compare a tensor's tag, dtype and size with what is decided.

    Returns in which ways it differs, or the whole comparison where its bytes cannot be compared.

    Args:
        role: which one it is.
        decided: how it must lie.
        dtype: that it must have, or another that carries the same.
        size: bytes of all experts, and the shape that has them.
        found: all experts, as the engine laid them out.
        tagged: the object that the kernel gets, on which AITER's tag must be.
    """
    reasons: list[str] = []
    if decided.is_shuffled and not getattr(tagged, AITER_TAG, False):
        reasons.append(f"AITER's tag {AITER_TAG} is not on the tensor")
    if found.dtype != dtype and found.dtype not in ACCEPTED_DTYPES[decided.dtype]:
        reasons.append(f"dtype {found.dtype} instead of {dtype}")
        return ExpertComparison(role, "differs", tuple(reasons))
    if not found.is_contiguous() or not found.dim():
        return ExpertComparison(role, "not compared", ("its bytes do not lie behind each other",))
    nbytes, shape = size
    if found.nbytes != nbytes:
        reasons.append(f"shape {tuple(found.shape)} instead of {shape}")
        return ExpertComparison(role, "differs", tuple(reasons))
    return reasons


def _copy(tensor: torch.Tensor, numbers: list[int]) -> torch.Tensor:
    made = torch.empty((len(numbers), *tensor.shape[1:]), dtype=tensor.dtype, device=tensor.device)
    for place, number in enumerate(numbers):
        # as bytes: not every dtype of four or eight bits can be copied
        source = tensor[number : number + 1].contiguous().view(torch.uint8)
        made[place : place + 1].view(torch.uint8).copy_(source)
    return made


def _of_experts(samples: ExpertSamples) -> Decision:
    """Return the decision for a layer that holds the sampled experts alone."""
    number = len(samples.experts)

    def cut(shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return (shape[0] * number // samples.count, *shape[1:]) if shape is not None else None

    shapes = ("logical_shape", "physical_shape", "passed_shape", "short_shape")
    tensors = {
        role: decided.model_copy(update={name: cut(getattr(decided, name)) for name in shapes})
        for role, decided in samples.decision.tensors.items()
        if role in samples.plain
    }
    return samples.decision.model_copy(update={"tensors": FrozenDict(tensors)})


def _compare(
    role: Role,
    decided: TensorDecision,
    wanted: torch.Tensor,
    found: torch.Tensor,
    tagged: torch.Tensor,
    samples: ExpertSamples,
) -> ExpertComparison:
    """Compare one tensor.

    Args:
        role: which one it is.
        decided: how it must lie.
        wanted: the sampled experts, laid out as decided.
        found: all experts, as the engine laid them out.
        tagged: the object that the kernel gets, on which AITER's tag must be.
        samples: which experts were sampled.
    """
    full = (wanted.shape[0] * samples.count // len(samples.experts), *wanted.shape[1:])
    expected = wanted.contiguous().view(torch.uint8).reshape(-1)
    each = expected.numel() // len(samples.experts)
    reasons = form_of(role, decided, wanted.dtype, (each * samples.count, full), found, tagged)
    if not isinstance(reasons, list):
        return reasons
    data = found.view(torch.uint8).reshape(-1)
    actual = torch.cat([data[number * each : (number + 1) * each] for number in samples.experts])
    if not torch.equal(actual, expected):
        different = int((actual != expected).sum())
        reasons.append(f"{different} of {each * len(samples.experts)} bytes of experts {samples.experts} differ")
        laid_out = actual.view(found.dtype).view(wanted.shape)
        return ExpertComparison(role, "differs", tuple(reasons), same_bytes=False, laid_out=laid_out)
    return ExpertComparison(role, "differs" if reasons else "equal", tuple(reasons), same_bytes=True)

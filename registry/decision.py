"""The answer: which bytes, which call, which kernels, and why; with everything that was rejected."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field

from preshuffle.registry.kernels import KernelChoice
from preshuffle.registry.query import Frozen
from preshuffle.registry.words import Activation, GateMode, QuantType, Role, RowOrder, TensorDtype

FindingCode = Literal[
    "layout_mismatch",
    "tag_lost",
    "tag_false",
    "double_shuffle",
    "raw_write",
    "stale_address",
    "stale_cache",
    "pad_required",
    "pad_fill",
    "pad_invalid",
    "pad_unreported",
    "scale_shape",
    "load_coverage",
    "source_order_mismatch",
    "unsupported",
    "version_unsupported",
    "fallback_layout",
    "flag_conflict",
    "flag_unknown",
    "known_bad",
    "contract_mismatch",
    "non_contiguous",
    "expert_view",
    "untuned",
    "numerics_deviation",
    "ambiguous_key",
    "stale_row",
]

WARNINGS: frozenset[str] = frozenset(
    {"pad_unreported", "flag_unknown", "untuned", "numerics_deviation", "ambiguous_key", "stale_row"}
)


class Finding(Frozen):
    """Something that an operator should know, with what would mend it."""

    code: FindingCode
    severity: Literal["error", "warning"]
    role: Role | None = None
    message: str
    expected: str | None = None
    actual: str | None = None
    fix: str | None = None
    evidence: tuple[str, ...] = ()

    @staticmethod
    def of(code: FindingCode, message: str, **more: Any) -> Finding:
        """Build a finding with the severity that its code has."""
        return Finding(code=code, severity="warning" if code in WARNINGS else "error", message=message, **more)


class Pad(Frozen):
    """Raw pads: physical minus logical, in the tensor's own count; for w13, rows of each half."""

    rows: Annotated[int, Field(ge=0)] = 0
    k: Annotated[int, Field(ge=0)] = 0


class TensorDecision(Frozen):
    """How one tensor of one rank must lie.

    Shapes are ``[experts, rows, K]`` in values (a scale's K in groups); a bias is ``[experts, rows]``.

    Attributes:
        logical_shape: of tensor-parallel rank 0, before padding.
        short_shape: of the last rank, where it gets less; its pads are larger by the difference.
        physical_shape: after padding; the same on every rank.
        source_order: the row order of the checkpoint; None for tensors without gate and up.
        order: the row order in which the rows are laid out.
        rank0_only: ranks other than tensor-parallel rank 0 hold zeros.
        is_shuffled: whether AITER's tag must be on the object that the kernel gets.
    """

    layout: str
    logical_shape: tuple[int, ...]
    physical_shape: tuple[int, ...]
    pad: Pad
    fill: int
    dtype: TensorDtype
    short_shape: tuple[int, ...] | None = None
    source_order: RowOrder | None = None
    order: RowOrder | None = None
    rank0_only: bool = False
    is_shuffled: bool = False


class CallDecision(Frozen):
    """The arguments of ``fused_moe`` that must go with the bytes. Pads are what to pass, in values."""

    gate_mode: GateMode
    quant_type: QuantType
    activation: Activation
    hidden_pad: int
    intermediate_pad: int
    bias: bool
    swiglu_limit: float | None = None
    swiglu_alpha: float | None = None


class KernelBucket(KernelChoice):
    """The kernel that AITER picks at one token count."""

    tokens: int


class Alternative(Frozen):
    """A recipe that was not chosen, and why."""

    recipe: str
    why_not: str


class Decision(Frozen):
    """Everything that a loader, a call and an operator need to know about one layer of one deployment."""

    recipe: str
    rule: str
    reason: str
    tensors: dict[Role, TensorDecision]
    call: CallDecision
    env: dict[str, str]
    kernels: tuple[KernelBucket, ...]
    alternatives: tuple[Alternative, ...]
    findings: tuple[Finding, ...]
    registry_digest: str
    decision_digest: str


def digest_of(value: Any) -> str:
    """Return ``sha256:…`` of a JSON value in canonical form (sorted keys, no spaces): the same on any machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

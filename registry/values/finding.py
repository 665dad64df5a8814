"""Finding: one thing that is wrong, with code and fix."""

from typing import Any, Literal

from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.words import (
    Role,
)

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
    """Something that an operator should know, with its fix."""

    code: FindingCode
    severity: Literal["error", "warning"]
    role: Role | None = None
    message: str
    expected: str | None = None
    actual: str | None = None
    fix: str | None = None
    evidence: tuple[str, ...] = ()

    @staticmethod
    def of(code: FindingCode, message: str, **more: Any) -> "Finding":
        """Build a finding with the severity that its code has."""
        return Finding(code=code, severity="warning" if code in WARNINGS else "error", message=message, **more)

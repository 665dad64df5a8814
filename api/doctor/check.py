"""Values of ``preshuffle doctor``: one check, and the report."""

from __future__ import annotations

from typing import Literal

from preshuffle.registry.base.frozen import Frozen

Status = Literal["ok", "info", "warning", "problem"]


class Check(Frozen):
    """Result of one check.

    Attributes:
        status: ``info`` means that something optional is missing.
        fix: a command, or what to do.
    """

    name: str
    status: Status
    detail: str
    fix: str | None = None


class DoctorReport(Frozen):
    """Results of all checks; ``ok`` unless one is a problem."""

    ok: bool
    version: str
    python: str
    checks: tuple[Check, ...]

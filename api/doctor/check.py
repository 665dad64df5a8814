"""Check and report of ``preshuffle doctor``."""

from __future__ import annotations

from typing import Literal

from preshuffle.registry.base.frozen import Frozen

Status = Literal["ok", "info", "warning", "problem"]


class Check(Frozen):
    """One thing that was looked at.

    Attributes:
        status: ``info`` is something optional that is not there.
        fix: the command, or what to do.
    """

    name: str
    status: Status
    detail: str
    fix: str | None = None


class DoctorReport(Frozen):
    """Everything that was looked at; ``ok`` unless something is a problem."""

    ok: bool
    version: str
    python: str
    checks: tuple[Check, ...]

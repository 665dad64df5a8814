"""What a finding code means, why it matters and how to mend it: the text of ``check --explain CODE``."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from typing import get_args

from preshuffle.registry.check.table import RULES
from preshuffle.registry.decision import WARNINGS, FindingCode
from preshuffle.registry.errors import FieldProblem, QueryError

CODES: tuple[str, ...] = get_args(FindingCode)


def explain_code(code: str) -> str:
    """Return what a code says, why it matters, how to mend it, and where it happened.

    Raises:
        QueryError: there is no such code; the nearest are named.

    Example:
        >>> print(explain_code("pad_unreported").splitlines()[0])
        pad_unreported (warning): A pad of 0 is right (the padding is zeros) but makes the kernel compute on it.
    """
    for rule in RULES:
        if rule.code == code:
            kind = "warning" if code in WARNINGS else "error"
            says = " ".join((inspect.getdoc(rule.check) or "").split())
            lines = [f"{code} ({kind}): {says}", "", f"Why it matters: {rule.why}", "", f"How to mend it: {rule.mend}"]
            return "\n".join([*lines, "", "Seen in:", *(f"  {url}" for url in rule.evidence)])
    raise QueryError(
        [FieldProblem("code", f"unknown code {code!r}", tuple(get_close_matches(code, CODES, 3) or CODES))]
    )

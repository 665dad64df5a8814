"""Explanations of finding codes, as ``check --explain CODE`` prints them."""

from __future__ import annotations

from typing import Literal, get_args

from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.suggestions import suggestion
from preshuffle.registry.check.rule_table import RULES
from preshuffle.registry.values.finding import WARNINGS, FindingCode

CODES: tuple[str, ...] = get_args(FindingCode)


class CodeExplanation(Frozen):
    """Explanation of one finding code.

    Attributes:
        severity: ``known_bad`` is a warning where its effect is only slow.
        says: what the finding says.
        why: why it matters.
        mend: how to fix it.
        evidence: where it happened.
    """

    code: FindingCode
    severity: Literal["error", "warning"]
    says: str
    why: str
    mend: str
    evidence: tuple[str, ...]

    def __str__(self) -> str:
        """Return the explanation as paragraphs of text."""
        parts = (f"{self.code} ({self.severity}): {self.says}", f"Why it matters: {self.why}")
        places = "\n".join(["Seen in:", *(f"  {url}" for url in self.evidence)])
        return "\n\n".join([*parts, f"How to fix it: {self.mend}", places])


def describe_code(code: str) -> CodeExplanation:
    """Return the explanation of a finding code.

    Raises:
        QueryError: there is no such code; the nearest are named.
    """
    for rule in RULES:
        if rule.code == code:
            return CodeExplanation(
                code=rule.code,
                severity="warning" if code in WARNINGS else "error",
                says=rule.says,
                why=rule.why,
                mend=rule.mend,
                evidence=rule.evidence,
            )
    raise QueryError([FieldProblem("code", f"unknown code {code!r}{suggestion(code, CODES, few=len(CODES))}")])


def explain_code(code: str) -> str:
    """Return the explanation of a finding code as text.

    Raises:
        QueryError: there is no such code; the nearest are named.

    Example:
        >>> print(explain_code("pad_unreported").splitlines()[0])
        pad_unreported (warning): A pad of 0 is right (the padding is zeros) but makes the kernel compute on it.
    """
    return str(describe_code(code))

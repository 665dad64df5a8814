"""Refusal of decisions that carry error findings."""

from __future__ import annotations

from collections.abc import Collection
from typing import get_args

from preshuffle.registry import Decision, LayoutError
from preshuffle.registry.base.suggestions import close_to
from preshuffle.registry.values.finding import FindingCode


def check_findings(decision: Decision, allow: Collection[FindingCode]) -> None:
    """Check that a decision carries no error but those allowed.

    Warnings are never refused.

    Args:
        decision: about to be applied.
        allow: codes of findings that the caller accepts.

    Raises:
        LayoutError: ``allow`` names no code, or the decision carries another error; says which, and how to allow it.
    """
    _check_codes(allow)
    errors = [one for one in decision.findings if one.severity == "error" and one.code not in allow]
    if not errors:
        return
    codes = list(dict.fromkeys(one.code for one in errors))
    found = "; ".join(f"{one.code}: {one.message}{f' (fix: {one.fix})' if one.fix else ''}" for one in errors)
    raise LayoutError(
        f"the decision ({decision.recipe}) carries errors, nothing was changed; {found}. Mend what they say, or pass "
        f"allow={[*allow, *codes]!r} to lay the tensors out all the same"
    )


def _check_codes(allow: Collection[FindingCode]) -> None:
    if isinstance(allow, str) or not isinstance(allow, Collection):
        raise LayoutError(f"allow = {allow!r}; valid: a list of codes of findings, such as ['known_bad']")
    known = get_args(FindingCode)
    for code in allow:
        if code not in known:
            meant = close_to(code, known) if isinstance(code, str) else ()
            hint = f"did you mean {' or '.join(meant)}?" if meant else f"valid: {', '.join(known)}"
            raise LayoutError(f"allow: unknown code {code!r}; {hint}")

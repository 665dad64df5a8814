"""known_bad: kernels, shapes and versions that are known to be wrong although everything agrees."""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.check.deployment.evidence import Look, at
from preshuffle.registry.resolve import known_problem_finding
from preshuffle.registry.values.finding import Finding


def known_bad(look: Look) -> Iterator[Finding]:
    """The deny-list: what others found out the hard way, with its work-around."""
    for entry, runs in look.listed:
        where = f" ({runs[0].what} {at(runs)})" if runs[0].reader == "aiter" else ""
        yield known_problem_finding(entry, where)

"""Rule on the deny-list: combinations known to be wrong or slow.

Code: known_bad.
"""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.check.deployment.evidence import Evidence, at
from preshuffle.registry.resolve import known_problem_finding
from preshuffle.registry.values.finding import Finding


def known_bad(evidence: Evidence) -> Iterator[Finding]:
    """Yield deny-list entries that hold, with their work-around."""
    yield from evidence.layer.faults("known_bad")
    for entry, runs in evidence.known_problems:
        where = f" ({runs[0].name} {at(runs)})" if runs[0].reader == "aiter" else ""
        yield known_problem_finding(entry, where)

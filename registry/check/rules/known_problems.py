"""Rule on the deny-list: combinations known to be wrong or slow.

Code: known_bad.
"""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.check.deployment.evidence import Evidence, at
from preshuffle.registry.values.finding import Finding

_EFFECTS = {
    "wrong": "gives wrong results",
    "crash": "crashes",
    "slow": "is slow",
    "differs": "differs from what is right here",
}
_SOURCES = {"code": "", "reports": ", as reports say (the cause was not found in code)"}
_HARMLESS = frozenset({"slow", "differs"})


def known_bad(evidence: Evidence) -> Iterator[Finding]:
    """Yield deny-list entries that hold, with their work-around.

    What is only slow, or what only the engine's own code does otherwise, is a warning.
    """
    yield from evidence.layer.faults("known_bad")
    for entry, runs in evidence.known_problems:
        where = f" ({runs[0].name} {at(runs)})" if runs[0].reader == "aiter" else ""
        finding = Finding.of(
            "known_bad",
            f"{entry.says}: it {_EFFECTS[entry.effect]}{where}{_SOURCES[entry.rests_on]}",
            actual=entry.id,
            fix=entry.workaround,
            evidence=entry.evidence,
        )
        yield finding.model_copy(update={"severity": "warning"}) if entry.effect in _HARMLESS else finding

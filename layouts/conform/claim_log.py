"""Cases of one kind of claims, counted as they are run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from preshuffle.registry.values.conformance import (
    MAX_DISAGREEMENTS,
    MAX_NOT_RUN,
    ClaimResult,
    Disagreement,
    NotRun,
)


@dataclass
class ClaimLog:
    """Counter of cases; the first disagreements are kept in full."""

    tried: int = 0
    agreed: int = 0
    disagreements: list[Disagreement] = field(default_factory=list)
    left_out: dict[tuple[str, str], None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def agree(self) -> None:
        """Count a case that agrees."""
        self.tried += 1
        self.agreed += 1

    def disagree(self, entry: str, case: str, here: str, there: str, source: str | None = None) -> None:
        """Count a case that disagrees; arguments as in ``Disagreement``."""
        self.tried += 1
        if len(self.disagreements) < MAX_DISAGREEMENTS:
            found = Disagreement(
                entry=entry[:400],
                case=case[:2000],
                here=here[:2000],
                there=there[:2000],
                source=source and source[:400],
            )
            self.disagreements.append(found)

    def not_run(self, what: str, why: str) -> None:
        """Note a part that was not tried, once."""
        if len(self.left_out) < MAX_NOT_RUN:
            self.left_out[what[:2000], why[:2000]] = None

    def note(self, text: str) -> None:
        """Note what limits the answer, once."""
        if text not in self.notes and len(self.notes) < 50:
            self.notes.append(text[:2000])

    def result(self) -> ClaimResult:
        """Return what came of it."""
        return ClaimResult(
            tried=self.tried,
            agreed=self.agreed,
            disagreements=tuple(self.disagreements),
            not_run=tuple(NotRun(what=what, why=why) for what, why in self.left_out),
            notes=tuple(self.notes),
            seconds=round(time.monotonic() - self.started, 1),
        )

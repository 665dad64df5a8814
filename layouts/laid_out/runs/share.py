"""Shares of a run, chosen by index without a scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.runs.run_plan import RunPlan
from preshuffle.layouts.laid_out.runs.unit_files import Unit, sources_of


@dataclass(frozen=True, slots=True)
class Share:
    """One of several equal shares of a run.

    Attributes:
        index: counted from 0, as Kubernetes counts.
        count: how many shares there are.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        """Check that there is such a share.

        Raises:
            LaidOutError: there is none.
        """
        if not 0 <= self.index < self.count:
            raise LaidOutError(f"share {self.index} of {self.count}: shares are counted from 0 to {self.count - 1}")

    def __str__(self) -> str:
        """Name the share as files do."""
        return f"{self.index}-of-{self.count}"

    def of(self, units: Sequence[Unit], plan: RunPlan) -> list[Unit]:
        """Return the units of the share.

        Each unit is in one share. Shares have about as many bytes, and units that read the same shards stay together,
        so that few shards are read by more than one process.
        """
        ordered = sorted(units, key=lambda unit: [path.name for path in sources_of(unit, plan)])
        total = max(1, sum(unit.nbytes for unit in ordered))
        chosen: list[Unit] = []
        before = 0
        for unit in ordered:
            middle = 2 * before + unit.nbytes
            if min(middle * self.count // (2 * total), self.count - 1) == self.index:
                chosen.append(unit)
            before += unit.nbytes
        return chosen

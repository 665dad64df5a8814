"""Score of a check on a folder of incident cases.

Every case must get its codes and verdict, every control no false alarm.

``python -m preshuffle.registry.incidents DIR [--tables PATH]`` prints the tally.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preshuffle.registry import Registry
from preshuffle.registry.text import parse_json
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.report import Report


@dataclass(frozen=True, slots=True)
class Score:
    """Result of one case; ``problems`` is empty where it passed."""

    id: str
    verdict: str
    codes: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tally:
    """Results of all cases of a folder."""

    scores: tuple[Score, ...]

    @property
    def passed(self) -> int:
        """How many cases came out as expected."""
        return sum(not score.problems for score in self.scores)

    @property
    def ok(self) -> bool:
        """Whether all did."""
        return self.passed == len(self.scores)

    def __str__(self) -> str:
        """Return one line per failed case, and the count."""
        failures = [f"{score.id}: {'; '.join(score.problems)}" for score in self.scores if score.problems]
        return "\n".join([*failures, f"{self.passed} of {len(self.scores)} as expected"])


def score(folder: Path | str, registry: Registry) -> Tally:
    """Check every ``*.json`` case of a folder.

    A case has ``observation`` and ``expect``: ``codes`` must all be found, at least one of each list in ``any_of``,
    none of ``not_codes``, and ``verdict`` lists the right ones.

    Raises:
        OSError: the folder cannot be read.
        QueryError: an observation is not well formed.
    """
    paths = sorted(Path(folder).glob("*.json"))
    return Tally(tuple(_score(path, registry) for path in paths))


def _score(path: Path, registry: Registry) -> Score:
    case = parse_json(path.read_text(encoding="utf-8"))
    report = registry.check(Observation.parse(case["observation"]))
    codes = tuple(dict.fromkeys(finding.code for finding in report.findings))
    return Score(case.get("id", path.stem), report.verdict, codes, tuple(problems(case["expect"], report)))


def problems(expect: dict[str, Any], report: Report) -> list[str]:
    """Return how a report differs from what a case expects."""
    codes = {finding.code for finding in report.findings}
    failures = [f"{code} is missing" for code in expect.get("codes", ()) if code not in codes]
    failures += [f"none of {', '.join(group)}" for group in expect.get("any_of", ()) if not codes & set(group)]
    failures += [f"{code} is a false alarm" for code in expect.get("not_codes", ()) if code in codes]
    if expect.get("verdict") and report.verdict not in expect["verdict"]:
        failures.append(f"verdict {report.verdict}, expected {' or '.join(expect['verdict'])}")
    return failures


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a folder's tally; return 0 if every case passed."""
    parser = argparse.ArgumentParser(prog="python -m preshuffle.registry.incidents", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tables", action="append", help="kernel tables (a CSV or AITER's configs folder)")
    options = parser.parse_args(arguments)
    tally = score(options.folder, Registry.load(kernel_tables=options.tables))
    print(tally)
    return 0 if tally.ok else 1


if __name__ == "__main__":
    sys.exit(main())

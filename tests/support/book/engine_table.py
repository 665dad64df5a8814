"""The tables of what engines do (tests/tables): one case is a query, and all that the book answers to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from support.source.yaml_files import read_yaml

TABLES = Path(__file__).parents[2] / "tables"


@dataclass(frozen=True, slots=True)
class Case:
    """One line of a table.

    Attributes:
        reason: words that the decision's reason holds.
        findings: codes of what is wrong with it (numerics apart).
        nothing_works: words of the refusal, where there is no recipe; all the rest is then empty.
    """

    id: str
    query: dict[str, Any]
    recipe: str = ""
    rule: str = ""
    reason: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    nothing_works: tuple[str, ...] = ()
    tensors: dict[str, str] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def row(self) -> str:
        """The engine's method that it is about."""
        return self.id.split()[0]

    def __str__(self) -> str:
        """Name the case in a test's report."""
        return self.id


@lru_cache
def read_table(name: str) -> tuple[Case, ...]:
    """Read ``tests/tables/<name>.yaml``, once in a process: several test modules have the cases of a table."""
    values = read_yaml(TABLES / f"{name}.yaml")
    return tuple(Case(id, **value) for id, value in values.items())

"""What is known of each engine: ``tables/*.yaml``, one file per engine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import Any, Final

import yaml

_FOLDER: Final = files(__package__) / "tables"
LAYERS: Final = "layers"
"""File of the layers, which all engines share."""


@dataclass(frozen=True, slots=True)
class EngineTable:
    """Imports, layers and known faults of one engine.

    Attributes:
        name: as in the book's ``engines``; a module of ``drivers`` has the same.
        title: for people.
        distribution: whose metadata has the version.
        package: the import name.
        checkout: the folder of a checkout that holds the package.
        entry: a file of the package without which it is not this engine.
        release: the version that ``known`` is about.
        needs: modules that an import asks for, and for which a stand-in does not do.
        absent: modules that an import asks for, replaced where they are not installed: experts need none of them.
        replaced: modules that are always replaced: compiled ones, and parts without experts that import much.
        own_kernels: text of the error by which the engine's own kernels refuse a CPU.
        env: environment of every run.
        runs: rows of ``engine_cases``.
        known: named faults: pattern of the cases' names, outcome, what differs, and whose fault it is.
    """

    name: str
    title: str
    distribution: str
    package: str
    checkout: str
    entry: str
    release: str
    needs: tuple[str, ...]
    absent: tuple[str, ...]
    replaced: tuple[str, ...]
    own_kernels: str
    env: dict[str, str]
    runs: tuple[dict[str, Any], ...]
    known: tuple[dict[str, Any], ...]


def driven_engines() -> tuple[str, ...]:
    """Return the engines that have a table, sorted."""
    names = (entry.name.partition(".") for entry in _FOLDER.iterdir())
    return tuple(sorted(stem for stem, _, ending in names if ending == "yaml" and stem != LAYERS))


def engine_layers() -> tuple[str, ...]:
    """Return the names of the layers that engines convert."""
    return tuple(read_table(LAYERS)["layers"])


@cache
def engine_table(name: str) -> EngineTable:
    """Return an engine's table.

    Raises:
        KeyError: the engine has none.
    """
    if name not in driven_engines():
        raise KeyError(name)
    content = {key: value for key, value in read_table(name).items() if key != "anchors"}
    for key in ("absent", "replaced"):
        content[key] = tuple(chain.from_iterable(content[key]))
    for key in ("needs", "runs", "known"):
        content[key] = tuple(content[key])
    return EngineTable(name=name, **content)


@cache
def read_table(name: str) -> dict[str, Any]:
    """Return the content of a file of ``tables``."""
    content: dict[str, Any] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return content

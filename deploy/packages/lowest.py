"""Lowest versions that pyproject.toml allows, as constraints for pip."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w,-]*\])?\s*>=\s*(?P<version>[\w.]+)")
_NAME = re.compile(r"[\w.-]+")
_SELF = "preshuffle"


def lowest(project: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the name and the lowest version of every requirement, extras included.

    Raises:
        ValueError: a requirement has no lower bound.
    """
    extras = project.get("optional-dependencies", {})
    base = project.get("dependencies", [])
    assert isinstance(extras, dict)
    assert isinstance(base, list)
    for line in [*base, *(line for lines in extras.values() for line in lines)]:
        found = _REQUIREMENT.match(line)
        if found:
            yield found["name"], found["version"]
        elif not line.startswith(f"{_SELF}["):
            raise ValueError(f"{line!r} has no lower bound: write {line}>=VERSION")


def main(replacing: Sequence[str]) -> int:
    """Print the constraints; requirements given as arguments replace the bounds of their names."""
    replaced = {found[0] for given in replacing if (found := _NAME.match(given))}
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    for name, version in lowest(project):
        if name not in replaced:
            print(f"{name}=={version}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

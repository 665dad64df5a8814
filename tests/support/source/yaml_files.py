"""YAML files of the tests, read by libyaml where PyYAML has it: ten times as fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> Any:
    """Return the values of a file with one document."""
    return yaml.load(path.read_text(encoding="utf-8"), _LOADER)

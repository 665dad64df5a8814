"""Values of a configuration, by dotted path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def value_at(config: Any, path: str) -> Any:
    """Return the value at a path, or None.

    A name that has dots itself counts before the path.

    Example:
        >>> value_at({"ffn_config": {"moe_top_k": 4}}, "ffn_config.moe_top_k")
        4
    """
    if isinstance(config, Mapping) and path in config:
        return config[path]
    value = config
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value

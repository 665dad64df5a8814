"""Values of a configuration, by dotted path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def value_at(config: Any, path: str) -> Any:
    """Return the value at a path, or None.

    A name that has dots itself counts before the path; in a list a part is the number of an item.

    Example:
        >>> value_at({"ffn_config": {"moe_top_k": 4}}, "ffn_config.moe_top_k")
        4
    """
    if isinstance(config, Mapping) and path in config:
        return config[path]
    value = config
    for part in path.split("."):
        value = _item(value, part)
    return value


def _item(value: Any, part: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(part)
    listed = isinstance(value, list) and len(part) < 6 and part.isdecimal() and int(part) < len(value)
    return value[int(part)] if listed else None

"""Find the line and column of a value in YAML text."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

from preshuffle.registry.text.field_problems import Path

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def find_mark(text: str, path: Path) -> tuple[int, int] | None:
    """Return the line and column of a path, counted from 1.

    None where the path is not in the text.
    """
    node = _root(text)
    marked = node
    for part in path:
        child = _child(node, part)
        if child is None:
            return None
        marked, node = child
    return None if marked is None else (marked.start_mark.line + 1, marked.start_mark.column + 1)


@lru_cache(maxsize=8)
def _root(text: str) -> Node | None:
    """Return the root node of a text; None where it is empty or not valid YAML."""
    loader = _BASE(text)
    try:
        return loader.get_single_node()  # type: ignore[no-any-return]
    except yaml.YAMLError:
        return None
    finally:
        loader.dispose()


def _child(node: Node | None, part: str | int) -> tuple[Node, Node] | None:
    """Return the node that marks a child (its key, or the item itself) and the child."""
    if isinstance(node, MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), None)
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        item: Node = node.value[part]
        return item, item
    return None

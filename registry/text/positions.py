"""Find the line and column of a value in YAML text."""

from __future__ import annotations

import gc
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
    tree = _tree(text)
    node = tree.root
    marked = node
    for part in path:
        child = tree.child(node, part)
        if child is None:
            return None
        marked, node = child
    return None if marked is None else (marked.start_mark.line + 1, marked.start_mark.column + 1)


class _Tree:
    """Nodes of one text; the keys of a mapping are indexed once, when it is first searched."""

    def __init__(self, root: Node | None) -> None:
        self.root = root
        self._keys: dict[int, dict[str, tuple[Node, Node]]] = {}

    def child(self, node: Node | None, part: str | int) -> tuple[Node, Node] | None:
        """Return the node that marks a child (its key, or the item itself) and the child."""
        if isinstance(node, MappingNode):
            if id(node) not in self._keys:
                pairs = [(key, value) for key, value in node.value if isinstance(key.value, str)]
                self._keys[id(node)] = {key.value: (key, value) for key, value in reversed(pairs)}
            return self._keys[id(node)].get(part) if isinstance(part, str) else None
        if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            item: Node = node.value[part]
            return item, item
        return None


@lru_cache(maxsize=8)
def _tree(text: str) -> _Tree:
    """Return the nodes of a text; none where it is empty or not valid YAML."""
    return _Tree(_root(text))


def _root(text: str) -> Node | None:
    loader = _BASE(text)
    collects = gc.isenabled()
    gc.disable()  # each collection would visit all nodes that are made so far
    try:
        return loader.get_single_node()  # type: ignore[no-any-return]
    except yaml.YAMLError:
        return None
    finally:
        loader.dispose()
        if collects:
            gc.enable()

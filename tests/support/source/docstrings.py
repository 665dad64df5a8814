"""First docstring lines of modules and public names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def first_lines(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line number and first docstring line of a module, its public classes, functions and methods."""
    yield from _of(tree)
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _is_public(node.name):
            yield from _of(node)
            if isinstance(node, ast.ClassDef):
                yield from _of_methods(node)


def _of_methods(parent: ast.ClassDef) -> Iterator[tuple[int, str]]:
    for node in parent.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _is_public(node.name):
            yield from _of(node)


def _of(node: Documented) -> Iterator[tuple[int, str]]:
    text = ast.get_docstring(node)
    if text:
        yield (1 if isinstance(node, ast.Module) else node.lineno), text.splitlines()[0]


def _is_public(name: str) -> bool:
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def words_of(line: str) -> list[str]:
    """Split a line into words; dashes and markup by themselves are none."""
    return [word for word in line.split() if re.search(r"\w", word)]

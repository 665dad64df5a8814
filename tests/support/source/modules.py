"""Parsed modules of a source tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True, slots=True, eq=False)
class SourceModule:
    """One module of the project, parsed.

    Attributes:
        name: dotted, such as ``preshuffle.registry.entries.rule``; a package has its folder's name.
        path: relative to the root, such as ``registry/entries/rule.py``.
        tree: the syntax tree.
    """

    name: str
    path: Path
    tree: ast.Module

    @classmethod
    def parse(cls, path: str | Path, text: str) -> SourceModule:
        """Parse the text of the file at a path relative to the root."""
        path = Path(path)
        parts = path.with_suffix("").parts
        name = ".".join(parts if parts[0] == "preshuffle" else ("preshuffle", *parts))
        return cls(name.removesuffix(".__init__"), path, ast.parse(text, str(path)))

    @property
    def is_package(self) -> bool:
        """Whether it is the ``__init__`` of a folder."""
        return self.path.name == "__init__.py"

    def bound_names(self) -> set[str]:
        """Return the names that its top level binds, those for type checkers included."""
        return set(_imported(self.tree.body)) | self.defined_names()

    def defined_names(self) -> set[str]:
        """Return the names that its top level defines or assigns: those that it binds without importing them."""
        return set(_defined(self.tree.body))

    def imported_names(self) -> set[str]:
        """Return the names that its top level imports from the project, those for type checkers included."""
        return set(_imported(self.tree.body, "preshuffle."))

    def public_classes(self) -> list[str]:
        """Return the public classes that its top level defines."""
        return [node.name for node in self.tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]


def _imported(body: list[ast.stmt], package: str = "") -> Iterator[str]:
    for node in _top_level(body):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.asname or alias.name for alias in node.names if alias.name.startswith(package))


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    for node in _top_level(body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, those under an ``if`` (TYPE_CHECKING) included."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from _top_level([*node.body, *node.orelse])


def modules_of(texts: Mapping[str, str]) -> dict[str, SourceModule]:
    """Parse texts by path into modules by name."""
    modules = (SourceModule.parse(path, text) for path, text in texts.items())
    return {module.name: module for module in modules}


@lru_cache
def modules_below(root: Path, *folders: str, files: str = "*.py") -> Mapping[str, SourceModule]:
    """Parse every Python file of folders below a root, or those of some name, into modules by name."""
    paths = sorted(path for folder in folders for path in (root / folder).rglob(files))
    return modules_of({str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in paths})

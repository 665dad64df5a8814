"""Import graph of a source tree, read from the syntax: at module level, inside functions, under TYPE_CHECKING."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from support.source.modules import SourceModule


@dataclass(frozen=True, slots=True)
class Import:
    """One module of the tree imports another.

    Attributes:
        importer: the module whose text has the import.
        imported: the module that runs: a submodule where one is named, otherwise the package.
        line: where.
        as_module: whether the name that is bound is the module itself (``from package import module``).
    """

    importer: SourceModule
    imported: SourceModule
    line: int
    as_module: bool

    def __str__(self) -> str:
        """Return ``registry/base/words.py:3 imports preshuffle.registry.check``."""
        return f"{self.importer.path}:{self.line} imports {self.imported.name}"


def imports_within(modules: Mapping[str, SourceModule]) -> list[Import]:
    """Return every import of one of the modules by another."""
    return [found for module in modules.values() for found in _imports_of(module, modules)]


def _imports_of(module: SourceModule, modules: Mapping[str, SourceModule]) -> Iterator[Import]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names = [(alias.name, True) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [_target(module, node.module, alias.name, modules) for alias in node.names]
        else:
            continue
        for name, as_module in dict.fromkeys(names):
            if name in modules:
                yield Import(module, modules[name], node.lineno, as_module)


def _target(importer: SourceModule, package: str, name: str, modules: Mapping[str, SourceModule]) -> tuple[str, bool]:
    """Return the module that ``from package import name`` reads, and whether the name is that module.

    A name that the package itself binds is read from the package, even where a submodule has the same name; only
    the package's own modules still reach the submodule so.
    """
    submodule = f"{package}.{name}"
    if submodule not in modules:
        return package, False
    own = f"{importer.name}.".startswith(f"{package}.")
    binds = package in modules and name in modules[package].bound_names()
    return (submodule, True) if own or not binds else (package, False)


def circles(imports: list[Import]) -> list[list[str]]:
    """Return the sets of modules that import each other in a circle (Tarjan's strongly connected components)."""
    graph: dict[str, list[str]] = {}
    for each in imports:
        graph.setdefault(each.importer.name, []).append(each.imported.name)
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = lowest[name] = len(index)
        stack.append(name)
        for other in graph.get(name, []):
            if other not in index:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], index[other])
        if lowest[name] == index[name]:
            component = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(component) > 1 or name in graph.get(name, []):
                found.append(sorted(component))

    for name in graph:
        if name not in index:
            visit(name)
    return found

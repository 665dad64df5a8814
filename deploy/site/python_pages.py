"""Reference of the Python API: the public names of the rooms, for mkdocstrings to describe."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from page_markup import page

INDEX: Final = "reference/python/index.md"
FACES: Final = ("preshuffle.registry", "preshuffle.layouts", "preshuffle.api.client")
"""Packages whose exports are stable."""


def python_pages() -> dict[str, str]:
    """Return one page per package, after one of all names."""
    described: dict[str, str] = {}
    for face in FACES:
        for _, home in exports(face):
            described.setdefault(home, face)
    parts = [
        page(
            f"## [{face}]({face}.md)",
            ", ".join(f"[`{name}`]({described[home]}.md#{home})" for name, home in exports(face)),
        )
        for face in FACES
    ]
    lead = "What these packages export is stable; [embedding](../../embed.md#what-is-stable) says for how long."
    faces = {
        f"reference/python/{face}.md": _face(face, [home for _, home in exports(face) if described[home] == face])
        for face in FACES
    }
    return {INDEX: page("# Python", lead, *parts), **faces}


def exports(face: str) -> list[tuple[str, str]]:
    """Return the public names of a package in order, each with the path of its definition.

    Sources are read, not run: importing the package that moves bytes would import torch.
    """
    tree = _source(face)
    assigned = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    written = assigned["__all__"]
    names = ast.literal_eval(written) if isinstance(written, ast.List) else import_module(face).__all__
    return [(name, home_of(face, name)) for name in sorted(names, key=str.lower)]


def home_of(module: str, name: str) -> str:
    """Return the path of a name's definition, through the packages that import it."""
    for node in ast.walk(_source(module)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return home_of(node.module, alias.name)
    return f"{module}.{name}"


@cache
def _source(module: str) -> ast.Module:
    found = find_spec(module)
    assert found is not None
    assert found.origin is not None
    return ast.parse(Path(found.origin).read_text(encoding="utf-8"))


def _face(face: str, homes: Iterable[str]) -> str:
    """Return a package's page: what is described on no page before it."""
    return page(f"# {face}", ast.get_docstring(_source(face)) or "", *(f"::: {home}" for home in homes))

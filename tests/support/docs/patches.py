"""Patches of engines in the documentation: where they go, and their functions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from support.docs.blocks import ROOT, Block, blocks

_PATCH = re.compile(r"# (?P<file>[\w/]+\.py) (?P<owner>\w+)\n(?P<text>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Patch:
    """Methods of an engine's class, as a page writes them.

    Attributes:
        file: of the engine, seen from its tree.
        owner: the class.
        text: the methods and their imports.
    """

    file: str
    owner: str
    text: str

    @property
    def module(self) -> str:
        """The module of the class."""
        return self.file.removesuffix(".py").replace("/", ".")

    def methods(self, names: dict[str, Any], **replaced: Any) -> dict[str, FunctionType]:
        """Run the text as the module would, and return the functions that it defines.

        Args:
            names: of the module.
            replaced: names that count before those that the text imports.
        """
        namespace = dict(names)
        exec(compile(self.text, self.file, "exec"), namespace)
        namespace.update(replaced)
        return {
            name: value
            for name, value in namespace.items()
            if isinstance(value, FunctionType) and value.__code__.co_filename == self.file
        }


def patches(engine: str) -> Iterator[Patch]:
    """Yield the patches of an engine's page."""
    for block in blocks(ROOT / "docs" / "engines" / f"{engine}.md"):
        if found := _PATCH.fullmatch(block.text):
            yield Patch(found["file"], found["owner"], found["text"])


def is_patch(block: Block) -> bool:
    """Return whether a block is a patch of an engine."""
    return _PATCH.fullmatch(block.text) is not None

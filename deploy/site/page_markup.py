"""Markdown of generated pages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

WIDE: Final = "---\nhide: [toc]\n---"
"""Head of a page without a table of contents at its side."""
_SPECIAL: Final = re.compile(r"([\\*_\[\]|#])")
_CODE: Final = re.compile(r"(`+.*?`+)")


def text(words: str) -> str:
    """Escape a text of one line; what stands in backticks stays code.

    Example:
        >>> text("a_b <c> and ``d|e``")
        'a\\\\_b &lt;c&gt; and ``d\\\\|e``'
    """
    parts = _CODE.split(" ".join(words.split()))
    return "".join(part.replace("|", "\\|") if part.startswith("`") else _escaped(part) for part in parts)


def code(words: object) -> str:
    """Return a word as code; empty for an empty one."""
    shown = str(words).replace("|", "\\|")
    return f"`{shown}`" if shown else ""


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already; empty without rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    head = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    return "\n".join([*head, *lines]) if lines else ""


def fenced(words: str, language: str = "") -> str:
    """Return a code block."""
    return f"```{language}\n{words.rstrip()}\n```"


def page(*parts: str) -> str:
    """Return a page of its parts, those that are empty left out."""
    return "\n\n".join(filter(None, parts)) + "\n"


def _escaped(words: str) -> str:
    return _SPECIAL.sub(r"\\\1", words).replace("<", "&lt;").replace(">", "&gt;")

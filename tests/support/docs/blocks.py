"""Code blocks of the documentation, and what says why one is not run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
RUNNABLE = ("console", "sh", "python")
_FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        page: the page, seen from the repository.
        line: where the block begins.
        notes: what the comment before it says: ``not run`` (why), ``ends with`` (an exit code), ``file`` (its name) or
            ``prints`` (it is what the program before it prints).
    """

    page: str
    line: int
    language: str
    text: str
    notes: tuple[str, str]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def note(self, name: str) -> str | None:
        """Return what the comment says under a name; None where it has another, or there is none."""
        return self.notes[1] if self.notes[0] == name else None


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start("language")) + 1
        name, _, said = (found["note"] or "").partition(":")
        yield Block(str(page.relative_to(ROOT)), line, found["language"], found["text"], (name.strip(), said.strip()))

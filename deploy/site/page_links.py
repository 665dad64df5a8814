"""Links of the documentation as the site shows them.

Those that leave the documentation lead to the repository; those that say the name of a page's file say its title.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Final

_LINK: Final = re.compile(r"(?P<text>\[[^\]]*\])\((?P<path>(?![a-z]+:|#)[^)\s#]+)(?P<fragment>#[^)\s]*)?\)")


_NAMED: Final = re.compile(
    r"\[(?:[\w/-]+/)?(?P<name>[\w-]+\.md)\]\((?P<path>[\w./-]*(?P=name))(?P<fragment>#[^)\s]*)?\)"
)
_TITLE: Final = re.compile(r"^# (.+)$", re.MULTILINE)


def say_titles(markdown: str, page: Path) -> str:
    """Replace the names of pages by their titles, where a link says no more than the file's name.

    Args:
        markdown: a page.
        page: its file, which need not be there.
    """

    def titled(found: re.Match[str]) -> str:
        file = page.parent / found["path"]
        title = _TITLE.search(file.read_text(encoding="utf-8")) if file.is_file() else None
        return f"[{title[1]}]({found['path']}{found['fragment'] or ''})" if title else found[0]

    return _NAMED.sub(titled, markdown)


def lead_outside(markdown: str, folder: str, base: str) -> str:
    """Lead relative links that leave the documentation to a URL.

    Args:
        markdown: a page.
        folder: the page's folder, seen from the repository; its first part is the documentation.
        base: the repository's URL.

    Example:
        >>> lead_outside("[a](../../a.py#L1) [b](../b.md) [c](c.md)", "docs/engines", "https://e.example")
        '[a](https://e.example/a.py#L1) [b](../b.md) [c](c.md)'
    """
    top = folder.split("/")[0]

    def absolute(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, found["path"]))
        if path.split("/")[0] == top:
            return found[0]
        return f"{found['text']}({base}/{path}{found['fragment'] or ''})"

    return _LINK.sub(absolute, markdown)

"""Links from the documentation to files outside its folder, led to the repository."""

from __future__ import annotations

import posixpath
import re
from typing import Final

_LINK: Final = re.compile(r"(?P<text>\[[^\]]*\])\((?P<path>(?![a-z]+:|#)[^)\s#]+)(?P<fragment>#[^)\s]*)?\)")


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

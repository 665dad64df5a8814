"""Home page of the documentation: the README, with its links seen from the docs folder."""

from __future__ import annotations

import posixpath
import re
from typing import Final

_LINK: Final = re.compile(r"(?P<text>!?\[[^\]]*\])\((?P<path>(?![a-z]+:|#)[^)\s]+)\)")


def home_page(readme: str, folder: str) -> str:
    """Rewrite relative links as a file in a folder has to write them.

    Example:
        >>> home_page("[a](docs/a.md#b) ![c](docs/c.png) [d](CHANGELOG.md) [e](https://e.example)", "docs")
        '[a](a.md#b) ![c](c.png) [d](../CHANGELOG.md) [e](https://e.example)'
    """
    return _LINK.sub(lambda found: f"{found['text']}({posixpath.relpath(found['path'], folder)})", readme)

"""Check a built site: nothing comes from other hosts, links and images lead somewhere, every page can be found.

``python deploy/site/check_site.py FOLDER`` prints what is wrong, and ends with 1 where something is.
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import unquote

_LOADED: Final = re.compile(r"<(?!a\b)\w+\b[^>]*?\s(?:href|src|srcset|data)=[\"']?([^\"'\s>]+)")
_LINKED: Final = re.compile(r"<a\b[^>]*?\shref=[\"']?([^\"'\s>]+)")
_OF_STYLES: Final = re.compile(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)")
_IDS: Final = re.compile(r"\s(?:id|name)=[\"']?([^\"'\s>]+)")
_ELSEWHERE: Final = re.compile(r"(?:https?:)?//")
_NEITHER: Final = re.compile(r"(?:data|mailto|javascript):")


def problems(site: Path) -> Iterator[str]:
    """Yield what is wrong with a built site."""
    pages = sorted(site.rglob("*.html"))
    for page in pages:
        text, name = page.read_text(encoding="utf-8"), str(page.relative_to(site))
        for target in _LOADED.findall(text):
            if _ELSEWHERE.match(target):
                yield f"{name} loads {target}"
            else:
                yield from _broken(site, name, target)
        for target in _LINKED.findall(text):
            if not _ELSEWHERE.match(target):
                yield from _broken(site, name, target)
    for styles in sorted(site.rglob("*.css")):
        for found in _OF_STYLES.findall(styles.read_text(encoding="utf-8")):
            if _ELSEWHERE.match("".join(found)):
                yield f"{styles.relative_to(site)} loads {''.join(found)}"
    yield from _not_found(site, [str(page.relative_to(site)) for page in pages])


def _broken(site: Path, page: str, target: str) -> Iterator[str]:
    """Yield a link within the site that leads nowhere."""
    if _NEITHER.match(target) or page == "404.html":  # its links are seen from wherever it is shown
        return
    path, _, fragment = unquote(target).partition("#")
    file = site / (posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page)
    if file.is_dir():
        file /= "index.html"
    if not file.is_file():
        yield f"{page} leads to {target}, which is not there"
    elif fragment and file.suffix == ".html" and not fragment.startswith("__") and fragment not in _ids(file):
        yield f"{page} leads to {target}, and {file.relative_to(site)} has no such place"


@cache
def _ids(file: Path) -> frozenset[str]:
    return frozenset(map(_unescaped, _IDS.findall(file.read_text(encoding="utf-8"))))


def _unescaped(text: str) -> str:
    return text.replace("&amp;", "&")


def _not_found(site: Path, pages: list[str]) -> Iterator[str]:
    """Yield pages that the search does not know."""
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    known = {entry["location"].partition("#")[0] for entry in index["docs"]}
    yield from (f"the search does not know {page}" for page in pages if page != "404.html" and page not in known)


def main() -> int:
    """Check the folder that is named."""
    found = list(dict.fromkeys(problems(Path(sys.argv[1]))))
    print("\n".join(found) or "no other host, no broken link, every page can be found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Evidence of entries: links to threads, pages and released code."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

_CODE = re.compile(
    r"https://github\.com/(?P<repository>[\w.-]+/[\w.-]+)/blob/(?P<revision>v\d[\w.-]*|[0-9a-f]{40})"
    r"/(?P<path>[^#\s]+)#(?!L\d+$)(?P<symbol>[A-Za-z_][\w.]*)"
)


@dataclass(frozen=True, slots=True)
class CodeReference:
    """Place in the code of a release: repository, revision, file and symbol.

    It is written as a link to GitHub whose fragment is the symbol:
    ``https://github.com/OWNER/NAME/blob/v1.2.0/path/file.py#function``. The revision is a release's tag or a whole
    commit, since a branch moves; a line number is no symbol.
    """

    repository: str
    revision: str
    path: str
    symbol: str

    @staticmethod
    @lru_cache(maxsize=1024)
    def parse(link: str) -> CodeReference | None:
        """Return the place that a link names; None for other evidence."""
        match = _CODE.fullmatch(link)
        return None if match is None else CodeReference(**match.groupdict())


def code_references(evidence: Iterable[str]) -> tuple[CodeReference, ...]:
    """Return those links of an entry that name code of a release."""
    return tuple(found for found in map(CodeReference.parse, evidence) if found is not None)

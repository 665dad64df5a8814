"""Cache of the packaged book's parsed YAML, beside Python's compiled modules.

YAML takes longer to parse a book of this size than everything that is then done with it. As with modules, a cached
file counts only for the very text that it was made of; where it cannot be written, the text is parsed each time.
"""

from __future__ import annotations

import marshal
import os
import sys
from contextlib import suppress
from functools import lru_cache, partial
from hashlib import sha256
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, Final

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.text.document import Document

FOLDER: Final = Path(__file__).parents[1] / "book"


def packaged_document(name: str) -> tuple[Document, list[Problem]]:
    """Return one parsed file of the packaged book, and its YAML problems."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    display_name, digest = f"{FOLDER.name}/{name}", sha256(text.encode()).digest()
    cached = Path(cache_from_source(str(FOLDER / name), optimization="")).with_suffix(".yamlc")
    try:
        cached_digest, value = marshal.loads(cached.read_bytes())
        if cached_digest == digest:
            return Document(display_name, value, text, partial(_find_again, text)), []
    except (OSError, ValueError, EOFError, TypeError):
        pass  # there is no cached file yet, or it is incomplete
    from preshuffle.registry.text.yaml_text import parse_yaml

    document, problems = parse_yaml(text, display_name)
    if not problems and not sys.dont_write_bytecode:
        _store(cached, (digest, document.value))
    return document, problems


@lru_cache(maxsize=4)
def _parsed(text: str) -> Document:
    from preshuffle.registry.text.yaml_text import parse_yaml

    return parse_yaml(text, "")[0]


def _find_again(text: str, path: tuple[str | int, ...]) -> tuple[int, int] | None:
    """Parse a text whose values come from the cache, for their positions."""
    return _parsed(text).mark(path)


def _store(file: Path, value: Any) -> None:
    temporary = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(marshal.dumps(value))
        temporary.replace(file)
    except (OSError, ValueError):  # a folder of somebody else's; a value, such as a date, that cannot be cached
        with suppress(OSError):
            temporary.unlink()

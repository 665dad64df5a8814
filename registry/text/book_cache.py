"""Cache of the packaged book's parsed YAML, beside Python's compiled modules.

YAML takes longer to parse a book of this size than everything that is then done with it. As with modules, a cached
file counts only for the very text that it was made of; where it cannot be written, the text is parsed each time.
"""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from hashlib import sha256
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, Final

from preshuffle.registry.base.errors import BookError, Problem
from preshuffle.registry.text.document import Document

FOLDER: Final = Path(__file__).parents[1] / "book"


def packaged_document(name: str) -> tuple[Document, list[Problem]]:
    """Return one parsed file of the packaged book, and its YAML problems."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    display_name, digest = f"{FOLDER.name}/{name}", sha256(text.encode()).digest()
    if (cached := _cached(name, digest)) is not None:
        return Document(display_name, cached[0], text, partial(_find_again, text)), []
    from preshuffle.registry.text.yaml_text import parse_yaml

    document, problems = parse_yaml(text, display_name)
    if not problems and not sys.dont_write_bytecode:
        _store(_file(name), (digest, document.value))
    return document, problems


def packaged_sections(name: str, *sections: str) -> list[list[dict[str, Any]]]:
    """Return the entries of sections of one packaged file.

    Each has its id among its fields.

    Raises:
        BookError: the file is not valid YAML.
    """
    document, problems = packaged_document(name)
    if problems:
        raise BookError(problems)
    return [[{"id": id, **fields} for id, fields in document.value[section].items()] for section in sections]


def signature(documents: Iterable[Document]) -> bytes:
    """Digest a book's texts, and the code that judges them.

    Of the code sizes and times count.
    """
    digest = sha256()
    for document in documents:
        digest.update(f"{document.name}\0{document.text}\0".encode())
    for line in sorted(_code(FOLDER.parent)):
        digest.update(line.encode())
    return digest.digest()


def _code(folder: Path | str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _code(entry.path)
            elif entry.name.endswith(".py"):
                status = entry.stat()
                yield f"{entry.path} {status.st_size} {status.st_mtime_ns}\n"


def is_recorded(name: str, digest: bytes) -> bool:
    """Return whether something of the packaged book was recorded for a digest."""
    return _cached(name, digest) is not None


def record(name: str, digest: bytes) -> None:
    """Record a digest; nothing where Python writes no compiled modules either."""
    if not sys.dont_write_bytecode:
        _store(_file(name), (digest, True))


def _file(name: str) -> Path:
    return Path(cache_from_source(str(FOLDER / name), optimization="")).with_suffix(".yamlc")


def _cached(name: str, digest: bytes) -> tuple[Any] | None:
    """Return what is cached under a name for a digest; None where nothing is."""
    try:
        cached_digest, value = marshal.loads(_file(name).read_bytes())
    except (OSError, ValueError, EOFError, TypeError):
        return None  # there is no cached file yet, or it is incomplete
    return (value,) if cached_digest == digest else None


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

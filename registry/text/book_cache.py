"""The files of the packaged book: what YAML makes of each is kept where Python keeps its compiled modules.

A book of this size takes YAML longer than everything that is then done with it. As with modules, what is kept counts
only for the very text that it was made of, and is done without where it cannot be written or may not be.
"""

from __future__ import annotations

import marshal
import os
import sys
from contextlib import suppress
from hashlib import sha256
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, Final

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.text.document import Document

FOLDER: Final = Path(__file__).parents[1] / "book"


def packaged_document(name: str) -> tuple[Document, list[Problem]]:
    """Return one file of the packaged book with the place of every value, and what is wrong with it as YAML."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    shown, digest = f"{FOLDER.name}/{name}", sha256(text.encode()).digest()
    kept = Path(cache_from_source(str(FOLDER / name), optimization="")).with_suffix(".yamlc")
    try:
        of, value = marshal.loads(kept.read_bytes())
        if of == digest:
            return Document(shown, value, text), []
    except (OSError, ValueError, EOFError, TypeError):
        pass  # there is none yet, or it is not whole
    from preshuffle.registry.text.yaml_text import parse_yaml

    document, problems = parse_yaml(text, shown)
    if not problems and not sys.dont_write_bytecode:
        _keep(kept, (digest, document.value))
    return document, problems


def _keep(file: Path, value: Any) -> None:
    scratch = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(marshal.dumps(value))
        scratch.replace(file)
    except (OSError, ValueError):  # a folder of somebody else's; a value, such as a date, that cannot be kept
        with suppress(OSError):
            scratch.unlink()

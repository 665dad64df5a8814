"""Read YAML and JSON with the line and column of every value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from preshuffle.registry.text.book_cache import (
    FOLDER,
    is_recorded,
    packaged_document,
    packaged_sections,
    record,
    signature,
)
from preshuffle.registry.text.document import Document
from preshuffle.registry.text.field_problems import Path, field_problems, short
from preshuffle.registry.text.json_text import DuplicateKeyError, check_keys, parse_json

if TYPE_CHECKING:
    from preshuffle.registry.text.yaml_text import parse_yaml as parse_yaml

__all__ = [
    "FOLDER",
    "Document",
    "DuplicateKeyError",
    "Path",
    "check_keys",
    "field_problems",
    "is_recorded",
    "packaged_document",
    "packaged_sections",
    "parse_json",
    "parse_yaml",
    "record",
    "short",
    "signature",
]


def __getattr__(name: str) -> Any:
    """Import the YAML parser on first use; the cached book needs none."""
    if name != "parse_yaml":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from preshuffle.registry.text.yaml_text import parse_yaml

    return parse_yaml

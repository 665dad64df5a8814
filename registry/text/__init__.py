"""Read YAML and JSON with the place of every value."""

from preshuffle.registry.text.book_cache import FOLDER, packaged_document
from preshuffle.registry.text.document import Document
from preshuffle.registry.text.field_problems import Path, field_problems
from preshuffle.registry.text.yaml_text import parse_yaml

__all__ = [
    "FOLDER",
    "Document",
    "Path",
    "field_problems",
    "packaged_document",
    "parse_yaml",
]

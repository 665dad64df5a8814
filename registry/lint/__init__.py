"""Check what must hold in a book before it is used."""

from preshuffle.registry.lint.book import lint, lint_packaged
from preshuffle.registry.lint.dispatch_book import dispatch_book_problems
from preshuffle.registry.lint.evidence import (
    Statement,
    evidence_problems,
    known_backends,
    known_readers,
    statements_of,
)
from preshuffle.registry.lint.families import family_problems
from preshuffle.registry.lint.refusals import refusing_entries
from preshuffle.registry.lint.ties import can_both_match

__all__ = [
    "Statement",
    "can_both_match",
    "dispatch_book_problems",
    "evidence_problems",
    "family_problems",
    "known_backends",
    "known_readers",
    "lint",
    "lint_packaged",
    "refusing_entries",
    "statements_of",
]

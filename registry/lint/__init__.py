"""Check what must hold in a book before it is used."""

from preshuffle.registry.lint.book import lint
from preshuffle.registry.lint.dispatch_book import dispatch_book_problems
from preshuffle.registry.lint.families import family_problems
from preshuffle.registry.lint.refusals import refusing_entries

__all__ = [
    "dispatch_book_problems",
    "family_problems",
    "lint",
    "refusing_entries",
]

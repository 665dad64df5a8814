"""Load books and overlays; index their rules and names."""

from preshuffle.registry.loading.arch_names import NamedArch, key_of, names_of
from preshuffle.registry.loading.book import Book, Place
from preshuffle.registry.loading.condition_index import Compiled, Entries
from preshuffle.registry.loading.fusion_index import PreparedFusion
from preshuffle.registry.loading.known_reads import NOT_SAID, Read, backend_reads, known_lines, read_lines, reads_of
from preshuffle.registry.loading.load import SECTIONS, load_book
from preshuffle.registry.loading.names import CONDITIONAL_SECTIONS
from preshuffle.registry.loading.rule_index import Prepared

__all__ = [
    "CONDITIONAL_SECTIONS",
    "NOT_SAID",
    "SECTIONS",
    "Book",
    "Compiled",
    "Entries",
    "NamedArch",
    "Place",
    "Prepared",
    "PreparedFusion",
    "Read",
    "backend_reads",
    "key_of",
    "known_lines",
    "load_book",
    "names_of",
    "read_lines",
    "reads_of",
]

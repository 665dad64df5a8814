"""Lint of kernel evidence: what kernels read, and how it is known."""

from preshuffle.registry.lint.evidence.claims import Claim, claims_of
from preshuffle.registry.lint.evidence.problems import evidence_problems
from preshuffle.registry.lint.evidence.readers import known_backends, known_readers
from preshuffle.registry.lint.evidence.statements import Statement, statements_of

__all__ = [
    "Claim",
    "Statement",
    "claims_of",
    "evidence_problems",
    "known_backends",
    "known_readers",
    "statements_of",
]

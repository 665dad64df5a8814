"""Check: what a deployment did (bytes, call, kernels), compared with itself and with what is known to go wrong.

Nothing is imported here: the book's loader needs ``entries``, and every other module needs the book. The way in is
``Registry.check``; ``checker`` does the work, ``table`` lists the rules, ``codes`` explains them.
"""

from preshuffle.registry.check.checker import Checker
from preshuffle.registry.check.codes import describe_code, explain_code
from preshuffle.registry.check.observation_of import observation_of

__all__ = [
    "Checker",
    "describe_code",
    "explain_code",
    "observation_of",
]

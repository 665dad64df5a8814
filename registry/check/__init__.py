"""Check an observed deployment for contradictions and known problems.

``Registry.check`` is the entry point. ``checker`` works in steps: ``deployment.observed_layer`` fills in an observation
from the book, ``deployment.possible_calls`` lists the calls of AITER that fit it, ``deployment.kernel_runs``
predicts the kernels of each, and the rules of ``rule_table`` (in ``rules/``) look for contradictions in all that
(``deployment.evidence``). ``verdict`` sums the findings up; ``codes`` explains them.
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

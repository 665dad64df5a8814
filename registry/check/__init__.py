"""Check an observed deployment for contradictions and known problems.

``Registry.check`` is the entry point. ``checker`` works in steps: ``layer.layer_of`` completes an observation from the
book, ``layer.possible_calls`` lists the calls of AITER that fit it, ``deployment.kernel_runs`` names the kernels of
each, and the rules of ``rule_table`` (in ``rules/``) look for contradictions in all that (``deployment.evidence``).
``verdict`` sums the findings up; ``codes`` explains them. ``Registry.resolve`` has its decisions judged by the same
rules.
"""

from preshuffle.registry.check.checker import Checker
from preshuffle.registry.check.codes import CODES, describe_code, explain_code

__all__ = [
    "CODES",
    "Checker",
    "describe_code",
    "explain_code",
]

"""Compare laid-out bytes with a plain reference implementation."""

from preshuffle.layouts.proof.prove import Check, prove
from preshuffle.layouts.proof.reference import Routing, laid_out_forward, plain_forward, relative_error, route

__all__ = [
    "Check",
    "Routing",
    "laid_out_forward",
    "plain_forward",
    "prove",
    "relative_error",
    "route",
]

"""Proof of laid-out bytes against a plain reference implementation."""

from preshuffle.layouts.proof.prove import Check, prove
from preshuffle.layouts.proof.reference import Routing, laid_out_forward, plain_forward, random_routing, relative_error

__all__ = [
    "Check",
    "Routing",
    "laid_out_forward",
    "plain_forward",
    "prove",
    "random_routing",
    "relative_error",
]

"""Predict, explain and compare AITER's kernels without AITER or a GPU.

A kernel table is a CSV of AITER's, or a folder laid out as its configs/; PATH@VERSION ties it to one AITER. Without any
table, answers are what AITER does for shapes without a row, and say so (tuned: unknown).
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Final

from preshuffle.api.commands.options.parser import add_json

ACTIONS: Final[dict[str, str]] = {
    "predict": "the kernel at each token count of a query, or one per line of calls",
    "explain": "one dispatch step by step: key, rows, rule, kernel, what it reads and drops",
    "diff": "what changes between two AITER versions or table sets",
    "coverage": "a model's token counts and TP sizes: tuned or not, which family",
    "check": "suspicious rows of kernel tables",
}
"""Every action and what it does; ``preshuffle.api.commands.kernels.<name>`` holds it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = parser.add_subparsers(required=True, metavar=f"({'|'.join(ACTIONS)})")
    for name, what in ACTIONS.items():
        module = import_module(f"preshuffle.api.commands.kernels.{name}")
        action = actions.add_parser(name, help=what, description=module.__doc__)
        module.add_arguments(action)
        add_json(action)
        action.set_defaults(run=module.run)

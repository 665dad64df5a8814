"""Functions that ``torch.compile`` calls as they are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def untraced(function: Callable[P, R]) -> Callable[P, R]:
    """Exclude a function from ``torch.compile``.

    It works on storages and addresses, which no graph has. Its caller is compiled around it; ``fullgraph=True`` refuses
    it. The compiler is looked for when the function is called: importing it takes seconds.
    """

    plain: list[Callable[P, R]] = []

    @wraps(function)
    def run(*arguments: P.args, **keywords: P.kwargs) -> R:
        if "torch._dynamo" not in sys.modules:
            return function(*arguments, **keywords)
        if not plain:
            plain.append(torch.compiler.disable(function))
        return plain[0](*arguments, **keywords)

    return run

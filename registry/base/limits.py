"""Limits on what users send: lengths of strings and numbers of items.

They are the one place that says how much a query, an observation or a report may hold. Each is far above what a real
deployment has; together they bound what one request can cost.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

MAX_NAME: Final = 256
"""Characters of a name: of an engine, a layout, a backend, a function, a switch."""
MAX_KERNEL_NAME: Final = 512
"""Characters of a kernel's name."""
MAX_VALUE: Final = 8192
"""Characters of a switch's value; some engines take JSON there."""
MAX_SWITCHES: Final = 512
MAX_FEATURES: Final = 256
MAX_KERNELS: Final = 256
"""Kernels of one observation."""
MAX_EVENTS: Final = 512
MAX_RANKS: Final = 4096
MAX_SLOTS: Final = 16_384
"""Expert slots of one rank."""
MAX_TENSORS: Final = 64
MAX_TOKENS: Final = 256
"""Token counts of one query."""
MAX_GROUPS: Final = 256
"""Groups of layers in one report."""
MAX_ITEMS: Final = 512
"""Items of one list or mapping inside an entry of the book."""
MAX_PROBLEMS: Final = 100
"""Problems of one input, or findings of one kind, that are listed; then follows how many more there are."""

Name = Annotated[str, Field(max_length=MAX_NAME)]
KernelName = Annotated[str, Field(max_length=MAX_KERNEL_NAME)]
SwitchValue = Annotated[str, Field(max_length=MAX_VALUE)]


def at_most(limit: int) -> BeforeValidator:
    """Return the check of a length, before the items are read.

    pydantic's own ``max_length`` does not count items that are not valid, and writes an error for each.
    """

    def check(value: Any) -> Any:
        if isinstance(value, list | tuple | dict) and len(value) > limit:
            raise ValueError(f"{len(value):,} items; valid: {limit:,} at most")
        return value

    return BeforeValidator(check)


def more(hidden: int, what: str) -> str:
    """Return the sentence on what is not listed.

    Example:
        >>> more(1200, "problems")
        'and 1,200 more problems'
    """
    return f"and {hidden:,} more {what}"

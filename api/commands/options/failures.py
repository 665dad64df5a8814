"""Exit codes and errors of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from preshuffle.registry.base.errors import PreshuffleError

OK: Final = 0
FAILED: Final = 1
BAD_INPUT: Final = 2
UNKNOWN: Final = 3
BUG: Final = 70
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
EXIT_CODES: Final[dict[int, str]] = {
    OK: "fine",
    FAILED: "error findings or no recipe",
    BAD_INPUT: "bad input",
    UNKNOWN: "unknown",
    BUG: "a bug of preshuffle",
    INTERRUPTED: "interrupted (SIGINT)",
    BROKEN_PIPE: "whoever reads standard output went away (SIGPIPE)",
}
"""Every exit code and what it means; commands say on their help what 1 and 3 mean of them."""


class UsageError(PreshuffleError, ValueError):
    """Error for an unknown command, option or value."""


class MissingExtraError(PreshuffleError, ImportError):
    """Error for a command whose optional packages are not installed."""

    def __init__(self, what: str, extra: str, missing: str | None) -> None:
        """Name the command, the extra and the missing package."""
        lacks = f" ({missing} is missing)" if missing else ""
        super().__init__(f'{what} needs more than the base installation{lacks}: pip install "preshuffle[{extra}]"')


@contextmanager
def needs_extra(what: str, extra: str) -> Iterator[None]:
    """Name the extra of an import that fails in the block.

    Raises:
        MissingExtraError: a package is missing that is none of the project's own.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("preshuffle"):
            raise
        raise MissingExtraError(what, extra, error.name) from None

"""Exit codes, and the errors that only the command line knows."""

from __future__ import annotations

from typing import Final

from preshuffle.registry.base.errors import PreshuffleError

OK: Final = 0
FAILED: Final = 1
BAD_INPUT: Final = 2
UNKNOWN: Final = 3
BUG: Final = 70


class UsageError(PreshuffleError, ValueError):
    """The command line itself is wrong: an unknown command, option or value."""


class MissingExtraError(PreshuffleError, ImportError):
    """A command needs packages that the base installation does not bring."""

    def __init__(self, what: str, extra: str, missing: str | None) -> None:
        """Name the command, the extra that brings the package, and the package that was not found."""
        lacks = f" ({missing} is missing)" if missing else ""
        super().__init__(f'{what} needs more than the base installation{lacks}: pip install "preshuffle[{extra}]"')

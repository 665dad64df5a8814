"""Errors of kernel prediction: AITER's own, and unreadable tables."""

from preshuffle.registry.base.errors import PreshuffleError


class DispatchError(Exception):
    """Exception that AITER raises before it launches a kernel.

    Attributes:
        kind: Name of AITER's exception type.
    """

    def __init__(self, kind: str, message: str) -> None:
        """Keep the exception type's name and what it says."""
        super().__init__(message)
        self.kind = kind

    def __str__(self) -> str:
        """Return ``<ExceptionType>: <message>``."""
        return f"{self.kind}: {self.args[0]}"


class TableError(PreshuffleError, ValueError):
    """A kernel table that cannot be used.

    The message names file, line, column and what would be valid.

    Attributes:
        source: ``file:line``, or the file alone where no line is meant.
        file: The file as the tables call it.
        line: The line, from 1; None where the file as a whole is meant.
        message: What is wrong there.
    """

    def __init__(self, source: str, message: str) -> None:
        """Keep the location (``file:line``) and what is wrong there."""
        super().__init__(f"{source}: {message}")
        self.source = source
        self.message = message
        file, _, line = source.rpartition(":")
        located = bool(file) and line.isascii() and line.isdecimal()
        self.file: str = file if located else source
        self.line: int | None = int(line) if located else None


def env_int(env: dict[str, str], name: str, default: int) -> int:
    """Return an integer from the environment as AITER reads it.

    Raises:
        DispatchError: The value is not an integer.
    """
    text = env.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError as exc:
        raise DispatchError("ValueError", f"{name}={text[:40]!r} is not an integer") from exc

"""Errors: those AITER would raise for a call, and those of tables that cannot be read."""


class DispatchError(Exception):
    """AITER raises for this call before it launches a kernel.

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


class TableError(ValueError):
    """A kernel table cannot be used; the message says file, line, column and what would be valid."""

    def __init__(self, source: str, message: str) -> None:
        """Keep the location (``file:line``) and what is wrong there."""
        super().__init__(f"{source}: {message}")
        self.source = source


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
        raise DispatchError("ValueError", f"{name}={text!r} is not an integer") from exc

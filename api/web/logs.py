"""Logs of the service, as text or JSON, from a level on."""

from __future__ import annotations

import logging
import re
import secrets
import sys
import threading
from types import TracebackType
from typing import Any, Final, Literal, TextIO

from preshuffle.api.log_lines import LOGGER, JsonFormatter, TextFormatter, json_line

Style = Literal["json", "text"]
Level = Literal["debug", "info", "warning", "error"]

_ACCEPTED: Final = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CHATTY: Final = ("uvicorn.error", "alembic", "asyncio", "httpx", "httpcore")
"""Loggers of libraries, whose lines below a warning are shown with ``debug`` only."""

log = logging.getLogger(LOGGER)


def request_id(given: str | None) -> str:
    """Return the client's request id if valid, else a new one.

    A valid one has up to 128 letters, digits and ``_ . : -``.
    """
    return given if given is not None and _ACCEPTED.fullmatch(given) else secrets.token_hex(8)


def set_up(style: Style, level: Level = "info", stream: TextIO | None = None) -> None:
    """Send the logs of this process to a stream.

    It is standard error by default.

    In JSON, Python's warnings and uncaught errors are log lines too.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else logging.WARNING)
    if style == "json":
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught
        threading.excepthook = _log_of_thread
        sys.unraisablehook = _log_unraisable


def current_set_up() -> tuple[Style, Level] | None:
    """Return style and level of this process's log, None without one.

    A child process sets up the same.
    """
    root = logging.getLogger()
    style: Style = "json" if any(isinstance(one.formatter, JsonFormatter) for one in root.handlers) else "text"
    levels: dict[int, Level] = {10: "debug", 20: "info", 30: "warning", 40: "error"}
    return (style, levels.get(root.level, "info")) if root.handlers else None


def say_first(style: Style, message: str, **fields: Any) -> None:
    """Print to standard output where the service is, in the log's style."""
    print(json_line("info", message, fields=fields) if style == "json" else message, flush=True)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("uncaught %s", kind.__name__, exc_info=(kind, error, trace))


def _log_of_thread(uncaught: threading.ExceptHookArgs) -> None:
    if uncaught.exc_value is not None and uncaught.exc_type is not SystemExit:
        name = uncaught.thread.name if uncaught.thread is not None else "unknown"
        found = (uncaught.exc_type, uncaught.exc_value, uncaught.exc_traceback)
        log.critical("thread %s ended with an error", name, exc_info=found)


def _log_unraisable(unraisable: Any) -> None:
    error = unraisable.exc_value
    found = (type(error), error, error.__traceback__) if error is not None else None
    log.error("%s %r", unraisable.err_msg or "error ignored in", unraisable.object, exc_info=found)

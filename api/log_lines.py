"""Log lines as JSON objects, formatted without any library."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

from preshuffle.registry.base.invisible import escape_invisible

REQUEST_ID: Final[ContextVar[str]] = ContextVar("request_id", default="")
"""Id of the current request."""
LOGGER: Final = "preshuffle.api"
FIELDS: Final = "fields"
"""Extra field whose entries become fields of the line, by names that a record may have too (``name``)."""
_OPTION: Final = "--log"
_VARIABLE: Final = "PRESHUFFLE_LOG"
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class TextFormatter(logging.Formatter):
    """Formats a record as one line, then its traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line, without control characters of clients."""
        return escape_invisible(super().formatMessage(record).rstrip())


class JsonFormatter(logging.Formatter):
    """Formats a record and its ``extra`` fields as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = {name: value for name, value in vars(record).items() if name not in _OWN}
        fields.update(fields.pop(FIELDS, {}))
        if current := REQUEST_ID.get():
            fields = {"request_id": current, **fields}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        return json_line(record.levelname.lower(), record.getMessage(), record.name, record.created, fields)


def json_line(
    level: str, message: str, logger: str = LOGGER, at: float | None = None, fields: dict[str, Any] | None = None
) -> str:
    """Return a log line: time (UTC), level, logger, message, more fields."""
    moment = datetime.fromtimestamp(time.time() if at is None else at, UTC)
    line = {
        "time": moment.isoformat(timespec="milliseconds"),
        "level": level,
        "logger": logger,
        "message": message,
        **(fields or {}),
    }
    return json.dumps(line, default=str, ensure_ascii=False)


def wants_json_log(arguments: Sequence[str]) -> bool:
    """Whether a command line starts a service whose log is JSON.

    It need not be valid otherwise.
    """
    if not arguments or arguments[0] != "serve":
        return False
    style = os.environ.get(_VARIABLE, "")
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if option == _OPTION:
            style = value
        elif option.startswith(f"{_OPTION}="):
            style = option.partition("=")[2]
    return style == "json"

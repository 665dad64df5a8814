"""Structured logs: one JSON object a line, with the request id."""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, Literal

Style = Literal["json", "text"]

REQUEST_ID: Final[ContextVar[str]] = ContextVar("request_id", default="")
"""Id of the current request."""
_ACCEPTED: Final = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


def request_id(given: str | None) -> str:
    """Return the client's request id if valid, else a new one.

    A valid one has up to 128 letters, digits and ``_ . : -``.
    """
    return given if given is not None and _ACCEPTED.fullmatch(given) else secrets.token_hex(8)


class JsonFormatter(logging.Formatter):
    """Formats a record and its ``extra`` fields as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current := REQUEST_ID.get():
            line["request_id"] = current
        line.update({name: value for name, value in vars(record).items() if name not in _OWN})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def set_up(style: Style) -> None:
    """Send all logs of this process to standard error, uvicorn's included."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if style == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)

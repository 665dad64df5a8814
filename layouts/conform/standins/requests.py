"""Requests and answers between this process and its children, as JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class AnswerFile:
    """File of answers, one JSON object per line, flushed at once."""

    def __init__(self, path: str) -> None:
        """Open the file for appending; forked processes share it."""
        self.file = open(path, "a", encoding="utf-8")

    def write(self, **answer: Any) -> None:
        """Append one answer."""
        self.file.write(json.dumps(answer) + "\n")
        self.file.flush()


def read_request(path: str) -> dict[str, Any]:
    """Return the request of a child process."""
    content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return content

"""A file of tokens, with the secrets that belong to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from preshuffle.api.web.tokens import make_token


@dataclass(frozen=True)
class Written:
    """The file, and a secret of each kind; ``report`` may change deployments that begin with ``gpt-``."""

    file: Path
    admin: str
    report: str


def write_tokens(file: Path) -> Written:
    """Write an admin's and a reporter's token."""
    admin, first = make_token("ops", "admin")
    report, second = make_token("fleet-a", "report", ("gpt-*",))
    lines = [token.model_dump(mode="json", exclude_defaults=True) for token in (first, second)]
    file.write_text("tokens:\n" + "".join(f"  - {json.dumps(line)}\n" for line in lines))
    return Written(file, admin, report)

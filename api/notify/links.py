"""Links to a deployment's page and to runbooks."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

RUNBOOKS: Final = "/docs/runbooks"
"""Path of the runbooks: below it, one page per finding code and state."""


class Links:
    """Links into the service, as people reach it."""

    def __init__(self, base: str) -> None:
        """Begin links with the service's URL, or with its root path."""
        self._base = base.rstrip("/")

    def page(self, deployment: str) -> str:
        """Return the link to a deployment's page."""
        return f"{self._base}/deployments/{quote(deployment, safe='')}"

    def runbook(self, code: str) -> str:
        """Return the link to a finding code's or state's runbook."""
        return f"{self._base}{RUNBOOKS}/{quote(code, safe='')}"

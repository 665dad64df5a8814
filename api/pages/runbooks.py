"""Runbooks: one page per finding code, state and alert of the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi import FastAPI
from starlette.responses import Response

from preshuffle.api.fleet import STATES
from preshuffle.api.notify import RUNBOOKS
from preshuffle.api.pages.render import Renderer
from preshuffle.api.web import ProblemError
from preshuffle.registry.base.suggestions import suggestion
from preshuffle.registry.check import CODES, describe_code


@dataclass(frozen=True, slots=True)
class Runbook:
    """What an alert says, why it matters, what to do.

    Attributes:
        name: the code, state or alert; the end of the page's path.
        kind: ``finding``, ``state`` or ``service``.
        severity: ``error`` or ``warning`` of a finding; empty of others.
        says: what is the case.
        why: why it matters.
        steps: what to do, in order.
        evidence: where it happened, or where it is written.
    """

    name: str
    kind: str
    says: str
    why: str
    steps: tuple[str, ...]
    severity: str = ""
    evidence: tuple[str, ...] = ()


_KINDS: Final = ("finding", "state", "service")
_OTHERS: Final = (
    Runbook(
        "mismatch",
        "state",
        f"{STATES['mismatch']}.",
        "The server answers 200 with garbage, and nothing else notices.",
        (
            "Take the deployment out of traffic.",
            "Open its page: the findings say which replica and layers, and what to do; each code has a runbook.",
            "Restart it with the fix, and report again.",
        ),
    ),
    Runbook(
        "unsupported",
        "state",
        f"{STATES['unsupported']}.",
        "It fails at the first request, or runs a kernel that is known to be wrong.",
        (
            "Open the deployment's page: the findings say what is missing and what would work.",
            "Choose another AITER, engine version or switch with `preshuffle resolve` or `preshuffle plan`.",
        ),
    ),
    Runbook(
        "stale",
        "state",
        f"{STATES['stale'].capitalize()}.",
        "Nobody knows what it runs now. No critical alert names a silent replica, even if its last report was wrong, "
        "and the alert on silence ends after a day.",
        (
            "Look whether the engine's process runs, on the node that the alert names.",
            "If it does, look for its heartbeats: network, NetworkPolicy's label, a revoked token (401 in the log).",
            "If it is gone for good, forget it: DELETE /v1/deployments/NAME?replica=N, or on its page.",
        ),
    ),
    Runbook(
        "drifted",
        "state",
        f"{STATES['drifted'].capitalize()}.",
        "Its bytes, call and kernels agree; a restart would lay the weights out in another way.",
        (
            "`preshuffle plan` says what a restart would change, and whether it gets better.",
            "Restart it when it suits you, or acknowledge it.",
        ),
    ),
    Runbook(
        "degraded",
        "state",
        f"{STATES['degraded'].capitalize()}.",
        "Answers are right or nearly so, and something is slower or less exact than it could be.",
        ("Open the deployment's page: the findings say what, and what it would take to mend it.",),
    ),
    Runbook(
        "unknown",
        "state",
        f"{STATES['unknown'].capitalize()}.",
        "A wrong layout would not be noticed.",
        ("Report more: w13's layout, gate_mode, the kernels that ran (`preshuffle registry schema observation`).",),
    ),
    Runbook(
        "service-down",
        "service",
        "No replica of preshuffle responds.",
        "Deployments keep serving, but nobody watches their layouts; start-up gates are open.",
        (
            "`kubectl -n preshuffle describe pods`, and the end of their logs: a failed start says why in one line.",
            "A store that is away does not stop the service: then /readyz is 503 and /healthz is 200.",
        ),
    ),
    Runbook(
        "files-do-not-load",
        "service",
        "The book's overlay, the kernel tables or the tokens as they are now do not load.",
        "The last good version stays in use: what was changed since has no effect; revoked tokens are still valid.",
        (
            "/readyz and every page name file, line and column.",
            "`preshuffle registry check --book DIR` or `preshuffle kernels coverage --tables DIR` lists all problems.",
        ),
    ),
    Runbook(
        "replicas-disagree",
        "service",
        "Replicas of preshuffle answer from different books.",
        "Verdicts depend on which replica is asked.",
        ("Compare `preshuffle_registry_info` by instance; roll the overlay out to all of them.",),
    ),
    Runbook(
        "request-errors",
        "service",
        "The service fails requests (5xx other than 503).",
        "It is a fault of the service, not of its callers.",
        ("Its log has the traceback at level error, by request id; please report it.",),
    ),
    Runbook(
        "webhook-fails",
        "service",
        "The webhook's receiver does not take state changes.",
        "Nobody hears of broken deployments in this way; metrics and pages still say so.",
        (
            "The log (logger preshuffle.api.webhook) has the status or the error; a redirect is not followed.",
            "Changes that were dropped are in the history: GET /v1/history.",
        ),
    ),
)


def runbooks() -> dict[str, Runbook]:
    """Return all runbooks by name.

    Those of findings are made of the registry's own table.
    """
    found = {code: _of_code(code) for code in CODES}
    return found | {one.name: one for one in _OTHERS if one.name not in found}


def _of_code(code: str) -> Runbook:
    explained = describe_code(code)
    state = next((one for one in _OTHERS if one.name == code), None)  # `unsupported` is a code and a state
    steps = (explained.mend, "The finding on the deployment's page has the exact fix for its layers.")
    more = state.steps if state is not None else ()
    return Runbook(
        code, "finding", explained.says, explained.why, (*steps, *more), explained.severity, explained.evidence
    )


def install(app: FastAPI, render: Renderer) -> None:
    """Add the pages; they need nothing from other hosts."""
    books = runbooks()

    @app.get(RUNBOOKS, include_in_schema=False)
    async def index() -> Response:
        kinds = [(kind, [one for one in books.values() if one.kind == kind]) for kind in _KINDS]
        return render("runbooks.html", place="docs", kinds=kinds)

    @app.get(f"{RUNBOOKS}/{{name}}", include_in_schema=False)
    async def runbook(name: str) -> Response:
        if name not in books:
            raise ProblemError("not-found", f"no runbook is called {name[:80]!r}{suggestion(name[:80], books)}")
        return render("runbook.html", place="docs", runbook=books[name])

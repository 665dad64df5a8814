"""Page that plans a rollout of another book or AITER."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from preshuffle.api.answers import Answers
from preshuffle.api.pages.render import Renderer
from preshuffle.api.rollout import Candidate, Planner, while_connected
from preshuffle.api.web import MAX_BODY, FieldFault, ProblemError, invalid_input, read_body
from preshuffle.registry.base.errors import FieldProblem, QueryError

FILE: Final = "overlay.yaml"
"""What the pasted overlay is called where something is wrong with it."""
FIELDS: Final = ("book", "aiter", "deployments")
_FORM: Final = "application/x-www-form-urlencoded"


def install(app: FastAPI, answers: Answers, planner: Planner, render: Renderer) -> None:
    """Add the form, and the form with its plan."""

    def show(values: Mapping[str, str], status: int = 200, **more: Any) -> Response:
        overlays = [source for source in answers.registry.book.sources if not source.startswith("book/")]
        context = {"plan": None, "problems": (), **more}
        return render("plan.html", status, place="plan", values=values, overlays=overlays, file=FILE, **context)

    @app.get("/plan", include_in_schema=False)
    async def form(request: Request) -> Response:
        return show({name: request.query_params.get(name, "") for name in FIELDS})

    @app.post("/plan", include_in_schema=False)
    async def plan(request: Request) -> Response:
        values = await _read_form(request)
        try:
            candidate = _candidate(values)
            async with planner.turn():
                found = await while_connected(request, planner.plan(candidate))
        except QueryError as error:
            return show(values, 422, problems=_faults(invalid_input(error.problems)))
        except ProblemError as error:
            if error.kind != "invalid-input":
                raise
            return show(values, 422, problems=_faults(error))
        return show(values, plan=found)


async def _read_form(request: Request) -> dict[str, str]:
    """Read the form's fields.

    Raises:
        ProblemError: it is too large, or is no form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise ProblemError("unsupported-media-type", f"Content-Type must be {_FORM}; found {kind!r}")
    body = await read_body(request, MAX_BODY)
    try:
        sent = dict(parse_qsl(body.decode("ascii"), max_num_fields=16, errors="strict"))
    except ValueError:
        raise invalid_input([FieldProblem("(whole)", "the body is not a form in UTF-8")]) from None
    return {name: sent.get(name, "") for name in FIELDS}


def _candidate(values: Mapping[str, str]) -> Candidate:
    """Return the candidate that the form describes.

    Raises:
        QueryError: nothing, or something wrong.
    """
    fields: dict[str, Any] = {name: values[name].strip() for name in ("aiter", "deployments") if values[name].strip()}
    if values["book"].strip():
        fields["books"] = [{FILE: values["book"].replace("\r\n", "\n")}]
    if not fields.keys() & {"books", "aiter"}:
        raise QueryError([FieldProblem("book", "nothing would change: paste an overlay, or name an AITER version")])
    return Candidate.parse(fields)


def _faults(error: ProblemError) -> Sequence[FieldFault]:
    faults: Sequence[FieldFault] = error.members["problems"]
    return faults

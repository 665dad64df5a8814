"""Page that resolves a query: a form, and the decision below.

The form has every field of a query; the decision comes with its kernels and reasons.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from anyio import to_thread
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from preshuffle.api.answers import Answers
from preshuffle.api.pages.layer_section import section_of
from preshuffle.api.pages.render import Renderer
from preshuffle.api.web import documented, parse_params
from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.launch import launch_of
from preshuffle.registry.loading import Book

FIRST: Final = ("model", "arch", "engine", "aiter", "activation_dtype", "tp", "ep", "tokens")
"""Fields that are always in sight; all others are folded away until they are used."""
_KNOWN: Final = {"model": "models", "arch": "archs"}
"""Fields whose values the book suggests, and its section."""


@dataclass(frozen=True, slots=True)
class Input:
    """One field of the form.

    Attributes:
        kind: ``text``, ``number``, ``choice`` or ``lines``.
        options: of a choice, or what is suggested for a text.
        problems: what is wrong with the value.
    """

    name: str
    kind: str
    value: str
    help: str
    required: bool
    options: tuple[str, ...]
    problems: tuple[str, ...]
    example: str


@dataclass(frozen=True, slots=True)
class Form:
    """The form with its values and their problems.

    Attributes:
        general: problems of no field of the form.
        more: whether the folded fields are wanted.
    """

    first: tuple[Input, ...]
    others: tuple[Input, ...]
    general: tuple[str, ...]

    @property
    def more(self) -> bool:
        """Whether any folded field has a value."""
        return any(field.value or field.problems for field in self.others)

    @property
    def faulty(self) -> tuple[Input, ...]:
        """The fields that are wrong."""
        return tuple(field for field in (*self.first, *self.others) if field.problems)


def install(app: FastAPI, answers: Answers, render: Renderer) -> None:
    """Add the page."""

    @app.get("/resolve", include_in_schema=False)
    async def resolve(request: Request) -> Response:
        return await to_thread.run_sync(_resolve, answers, render, request.query_params.multi_items())


def _resolve(answers: Answers, render: Renderer, items: Sequence[tuple[str, str]]) -> Response:
    given = list(_given(items))
    problems: Sequence[FieldProblem] = ()
    section = launch = None
    book = answers.registry.book
    if given:
        try:
            query = parse_params(given)
            section = section_of(query, answers)
            if section.group.decision is not None:
                launch = launch_of(query, section.group.decision, book)
        except QueryError as error:
            problems = error.problems
    form = make_form(given, problems, book)
    status = 422 if problems else 200
    return render("resolve.html", status, place="resolve", form=form, section=section, launch=launch)


def _given(items: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """Drop empty fields; split switches, one a line."""
    for name, text in items:
        for value in text.splitlines() if name == "env" else [text]:
            if value.strip():
                yield name, value.strip()


def make_form(given: Sequence[tuple[str, str]], problems: Sequence[FieldProblem], book: Book) -> Form:
    """Build the form with its values and the problems of each."""
    values: dict[str, list[str]] = {}
    for name, value in given:
        values.setdefault(name, []).append(value)
    wrong: dict[str, list[str]] = {}
    for problem in problems:
        text = f"{problem.message}; valid: {', '.join(problem.valid)}" if problem.valid else problem.message
        wrong.setdefault(problem.field.partition(".")[0], []).append(text)
    fields = {
        field["name"]: _input(field, values.get(field["name"], ()), wrong.get(field["name"], ()), book)
        for field in documented()
    }
    return Form(
        first=tuple(fields[name] for name in FIRST),
        others=tuple(field for name, field in fields.items() if name not in FIRST),
        general=tuple(f"{name}: {text}" for name, texts in wrong.items() if name not in fields for text in texts),
    )


def _input(field: dict[str, Any], values: Sequence[str], problems: Sequence[str], book: Book) -> Input:
    name, schema = field["name"], field["schema"]
    kinds = {"array": "lines", "boolean": "choice", "integer": "number"}
    kind = "choice" if "enum" in schema else kinds.get(schema["type"], "text")
    options = schema.get(
        "enum", ("true", "false") if schema["type"] == "boolean" else book.entries.get(_KNOWN.get(name, ""), ())
    )
    examples = schema.get("examples", schema.get("items", {}).get("examples", ("",)))
    return Input(
        name=name,
        kind=kind,
        value="\n".join(values),
        help=field["description"].replace("``", ""),
        required=field["required"],
        options=tuple(options),
        problems=tuple(problems),
        example=str(examples[0]),
    )

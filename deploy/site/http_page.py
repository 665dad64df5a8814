"""Reference of the HTTP API, from the OpenAPI document of the service."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from page_markup import code, fenced, page, table, text

from preshuffle.api.app import create_app
from preshuffle.api.pages.api_reference import Operation, Row, reference
from preshuffle.api.settings import Settings
from preshuffle.registry import Registry

URI: Final = "reference/http.md"


def http_page() -> str:
    """Return the page."""
    found = reference(_document())
    operations = [operation for _, group in found.tags for operation in group]
    rows = [
        (f"[`{operation.method} {operation.path}`](#{operation.ident})", text(operation.summary))
        for operation in operations
    ]
    return page(
        "# HTTP",
        text(found.description),
        "A running service has the same page at `/docs`, and the document itself at `/openapi.json`.",
        table(("Operation", "What it does"), rows),
        "## Operations",
        *(part for operation in operations for part in _operation(operation)),
        "## Types",
        *(
            page(f"### {schema.name}", *map(text, schema.description.split("\n\n")), _rows("Field", schema.fields))
            for schema in found.schemas
        ),
    )


def _document() -> dict[str, Any]:
    """Return the document of a service with an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(db=f"sqlite:///{Path(folder) / 'store.db'}"), Registry.default())
        document = app.openapi()
        app.state.service.store.close()
    return document


def _operation(operation: Operation) -> Iterator[str]:
    yield f"### {operation.method} {operation.path} {{ #{operation.ident} }}".replace("_", "\\_", 0)
    yield f"{text(operation.summary)}."
    yield _rows("Parameter", operation.parameters)
    if operation.body:
        yield f"**Body**: {_type(operation.body)}, as `application/json`"
        if operation.example:
            yield fenced(operation.example, "json")
    yield _rows("Status", operation.responses)


def _rows(title: str, rows: Iterable[Row]) -> str:
    return table((title, "Type", "Meaning"), [(_name(row), _type(row), text(row.description)) for row in rows])


def _name(row: Row) -> str:
    where = f" {row.where}" if row.where else ""
    return f"{code(row.name)}{where}{', required' if row.required and row.where else ''}"


def _type(row: Row) -> str:
    shown = text(row.type)
    return f"[{shown}](#{row.link.lower()})" if row.link else shown

"""Renderer of templates, with the headers of every page."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI
from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.ext import Extension
from markupsafe import escape
from starlette.requests import Request
from starlette.responses import Response

import preshuffle
from preshuffle.api.answers import Answers, registry_view
from preshuffle.api.fleet import INCOMPLETE, STATES
from preshuffle.api.pages.formats import REASON_KINDS, ago, number, numbers, shape, url, words
from preshuffle.api.server import path_within
from preshuffle.api.settings import Settings
from preshuffle.api.upkeep import Watching
from preshuffle.registry.base.invisible import SPACES, escape_invisible
from preshuffle.registry.values.report import MEANINGS

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_SHOWN: Final[dict[str, str]] = dict([*STATES.items(), ("incomplete", INCOMPLETE)])
"""Meaning of each badge of a deployment."""
_BLOCKS: Final = (
    "tr|t[dh]|tbody|thead|table|[uod]l|li|d[td]|div|section|p|h[1-6]|details|summary|figure|figcaption|header|footer|main|"
    "nav|form|option|select|meta|link|script|title|head|body|html"
)
_INDENTATION: Final = re.compile(rf"\s*\n\s*(?=</?(?:{_BLOCKS})\b)|(?<=\n) +(?=<)")
"""Spaces before tags where a browser shows none; a page is the smaller without them."""
_SEEN: Final = "\t\n\r" + SPACES
_Handler = Callable[[Request, Exception], Awaitable[Response]]


def seen(value: object) -> object:
    """Escape what is not seen in a text of a page.

    Other values and markup stay, and so does the value of a form's field (filter ``field``), which is sent again.
    """
    return escape_invisible(value, keep=_SEEN) if type(value) is str else value


def href(link: str) -> str:
    """Write a link in ASCII, as browsers request it."""
    return quote(link, safe=string.punctuation)


class _WithoutIndentation(Extension):
    """Removes the indentation of tags from templates: a tenth of some pages."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        return re.sub(r"^[ \t]+(?=<)", "", source, flags=re.MULTILINE)


def templates(root: str = "") -> Environment:
    """Return the templates with the filters and words that they use.

    Args:
        root: path below which browsers find the service.
    """
    environment = Environment(
        loader=PackageLoader("preshuffle.api"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=seen,
        extensions=[_WithoutIndentation],
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    environment.filters.update(
        ago=ago, words=words, number=number, shape=shape, numbers=numbers, href=href, field=escape
    )
    environment.globals.update(
        version=preshuffle.__version__,
        meanings=MEANINGS,
        states=_SHOWN,
        reason_kinds=REASON_KINDS,
        url=url,
        root=root,
    )
    return environment


class Renderer:
    """Renders templates with the registry and the state of reloads.

    Paths that pages are given have no root path: templates write ``{{ root }}`` before each.
    """

    def __init__(self, answers: Answers, watching: Watching, settings: Settings) -> None:
        """Load the templates; the settings say where browsers find the service."""
        self._settings = settings
        self._watching = watching
        self._answers = answers
        self._templates = templates(settings.root)

    def __call__(
        self, template: str, status: int = 200, headers: Mapping[str, str] | None = None, **context: Any
    ) -> Response:
        """Render a page."""
        text = self._templates.get_template(template).render(
            watching=self._watching, registry=registry_view(self._answers.registry), **context
        )
        text = _INDENTATION.sub("", text)
        return Response(text, status, headers={**(headers or {}), **HEADERS}, media_type="text/html; charset=utf-8")

    def base(self, request: Request) -> str:
        """Return the service's URL as a client reaches it."""
        return self._settings.links_base if self._settings.public_url else str(request.base_url).rstrip("/")

    def problems(self, app: FastAPI) -> None:
        """Render problems as pages for browsers.

        All other clients get them as ``application/problem+json``.
        """
        for kind, handler in list(app.exception_handlers.items()):
            app.add_exception_handler(kind, self._as_page(handler))

    def _as_page(self, handler: Any) -> _Handler:
        async def render_problem(request: Request, error: Exception) -> Response:
            response: Response = await handler(request, error)
            if path_within(request.scope).startswith("/v1/") or "text/html" not in request.headers.get("accept", ""):
                return response
            passed_on = ("allow", "retry-after", "www-authenticate")
            headers = {name: response.headers[name] for name in passed_on if name in response.headers}
            problem = json.loads(bytes(response.body))
            return self("problem.html", response.status_code, headers, place="", problem=problem)

        return render_problem

"""The registry's listings. What is declared here is their documentation: plain routes before it answer."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from preshuffle.api.answers import Answers, Archs, Layouts, Models, Recipes, RegistryView, listings
from preshuffle.api.web import IF_NONE_MATCH, Serialised, problems
from preshuffle.registry import Registry
from preshuffle.registry.base.frozen import Frozen

TAGS: Final[list[str | Enum]] = ["registry"]
_DOCUMENTED: Mapping[str, tuple[type[Frozen], str]] = {
    "/v1/registry": (RegistryView, "The registry that answers here"),
    "/v1/recipes": (Recipes, "All recipes"),
    "/v1/layouts": (Layouts, "All layouts"),
    "/v1/models": (Models, "All models that the book knows"),
    "/v1/archs": (Archs, "All GPU architectures that the book knows"),
}


def serialise(registry: Registry) -> dict[str, Serialised]:
    """Serialise every listing. Its tag is the registry's digest, with the kernel tables' where it shows them."""
    tags = dict.fromkeys(_DOCUMENTED, registry.digest)
    if registry.tables is not None:
        tags["/v1/registry"] += f"+{registry.tables.digest}"
    return {path: Serialised.of(value, tags[path]) for path, value in listings(registry).items()}


class _Current:
    """A listing that is another one when the registry is."""

    def __init__(self, serialised: Serialised) -> None:
        self.serialised = serialised

    async def respond(self, request: Request) -> Response:
        return await self.serialised.respond(request)


def install(app: FastAPI, answers: Answers) -> None:
    """Add the routes: plain ones in front of all others, which answer, and their documentation."""
    table = {path: _Current(serialised) for path, serialised in serialise(answers.registry).items()}

    def follow(registry: Registry) -> None:
        for path, serialised in serialise(registry).items():
            table[path].serialised = serialised

    answers.followers.append(follow)
    app.router.routes[:0] = [Route(path, current.respond, methods=["GET"]) for path, current in table.items()]
    for path, (model, summary) in _DOCUMENTED.items():
        app.add_api_route(
            path,
            table[path].respond,
            tags=TAGS,
            response_model=model,
            summary=summary,
            operation_id=path.removeprefix("/v1/"),
            responses={304: {"description": "The client has it"}, **problems()},
            openapi_extra={"parameters": [IF_NONE_MATCH]},
        )

"""``/v1/registry`` and the listings of recipes, layouts, models and GPU architectures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Final

from fastapi import APIRouter

from preshuffle.api.answers import (
    Answers,
    Archs,
    Layouts,
    ListingCache,
    Models,
    Recipes,
    RegistryView,
    archs_view,
    layouts_view,
    models_view,
    recipes_view,
    registry_view,
)
from preshuffle.api.web import IF_NONE_MATCH, NOT_MODIFIED, CachedResponse, DirectRoute, problems
from preshuffle.registry import Registry
from preshuffle.registry.base.frozen import Frozen

TAGS: Final[list[str | Enum]] = ["registry"]


@dataclass(frozen=True, slots=True)
class _Listing:
    """Declaration of a listing: response model, summary, view function."""

    model: type[Frozen]
    summary: str
    view: Callable[[Registry], Frozen]


_LISTINGS: Final[Mapping[str, _Listing]] = {
    "/v1/registry": _Listing(RegistryView, "The registry that answers here", registry_view),
    "/v1/recipes": _Listing(Recipes, "All recipes", recipes_view),
    "/v1/layouts": _Listing(Layouts, "All layouts", layouts_view),
    "/v1/models": _Listing(Models, "All models that the book knows", models_view),
    "/v1/archs": _Listing(Archs, "All GPU architectures that the book knows", archs_view),
}


def listing_caches(answers: Answers) -> dict[str, ListingCache]:
    """Return a cache for each listing, by path."""
    return {path: ListingCache(answers, partial(_serialise, path)) for path in _LISTINGS}


def router(caches: Mapping[str, ListingCache]) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()
    for path, listing in _LISTINGS.items():
        routes.add_route(path, caches[path].respond, include_in_schema=False)  # GET and HEAD; the next one documents it
        routes.add_api_route(
            path,
            caches[path].respond,
            tags=TAGS,
            response_model=listing.model,
            summary=listing.summary,
            operation_id=path.removeprefix("/v1/"),
            responses={**NOT_MODIFIED, **problems()},
            openapi_extra={"parameters": [IF_NONE_MATCH]},
            route_class_override=DirectRoute,
        )
    return routes


def _serialise(path: str, registry: Registry) -> CachedResponse:
    """Serialise a listing.

    Its ETag is the registry's digest, with that of the kernel tables where it shows them.
    """
    tag = registry.digest
    if path == "/v1/registry" and registry.tables is not None:
        tag += f"+{registry.tables.digest}"
    return CachedResponse.of(_LISTINGS[path].view(registry), tag)

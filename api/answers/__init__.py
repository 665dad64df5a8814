"""Answers of the service, made from registry and store, and their caches."""

from preshuffle.api.answers.answers import Answer, Answers
from preshuffle.api.answers.deployment_views import (
    DeploymentGroup,
    DeploymentHealth,
    DeploymentList,
    DeploymentView,
    GroupView,
    ReplicaView,
    group_view,
    summary,
    view,
)
from preshuffle.api.answers.listing_cache import ListingCache
from preshuffle.api.answers.matrices import Matrices
from preshuffle.api.answers.registry_views import (
    Archs,
    Layouts,
    Models,
    Recipes,
    RegistryView,
    archs_view,
    layouts_view,
    models_view,
    recipes_view,
    registry_view,
)
from preshuffle.api.answers.response_cache import ResponseCache, etag_of

__all__ = [
    "Answer",
    "Answers",
    "Archs",
    "DeploymentGroup",
    "DeploymentHealth",
    "DeploymentList",
    "DeploymentView",
    "GroupView",
    "Layouts",
    "ListingCache",
    "Matrices",
    "Models",
    "Recipes",
    "RegistryView",
    "ReplicaView",
    "ResponseCache",
    "archs_view",
    "etag_of",
    "group_view",
    "layouts_view",
    "models_view",
    "recipes_view",
    "registry_view",
    "summary",
    "view",
]

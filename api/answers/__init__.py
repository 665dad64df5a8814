"""Answers of the service, made from registry and store."""

from preshuffle.api.answers.answers import Answer, Answers
from preshuffle.api.answers.deployment_views import (
    DeploymentHealth,
    DeploymentList,
    DeploymentView,
    GroupView,
    group_view,
    summary,
    view,
)
from preshuffle.api.answers.registry_views import (
    Archs,
    Layouts,
    Models,
    Recipes,
    RegistryView,
    listings,
    our_version,
    registry_view,
)
from preshuffle.api.answers.response_cache import HotResolve, etag_of

__all__ = [
    "Answer",
    "Answers",
    "Archs",
    "DeploymentHealth",
    "DeploymentList",
    "DeploymentView",
    "GroupView",
    "HotResolve",
    "Layouts",
    "Models",
    "Recipes",
    "RegistryView",
    "etag_of",
    "group_view",
    "listings",
    "our_version",
    "registry_view",
    "summary",
    "view",
]

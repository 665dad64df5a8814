"""The service: the registry over HTTP, deployments in a store, and a page for operators."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from fastapi import FastAPI

from preshuffle.api import (
    openapi,
    page,
    problem,
    routes_check,
    routes_deployments,
    routes_health,
    routes_kernels,
    routes_registry,
    routes_resolve,
)
from preshuffle.api.answers import Answers
from preshuffle.api.deployments import ReplicaReport
from preshuffle.api.errors import ServeError
from preshuffle.api.listen import bind, check_host, is_loopback, run, url_of
from preshuffle.api.listings import our_version
from preshuffle.api.settings import Settings
from preshuffle.api.store import Store
from preshuffle.registry.kernels import TableError
from preshuffle.registry.observation import Observation
from preshuffle.registry.query import Query
from preshuffle.registry.registry import Registry

log = logging.getLogger("preshuffle.api")


def create_app(settings: Settings, registry: Registry, store: Store | None = None) -> FastAPI:
    """Build the service.

    Args:
        settings: where the store lies, if none is given.
        registry: what answers; another registry is another service.
        store: an open store; it is closed when the service shuts down.

    Raises:
        StoreError: the store cannot be opened.
    """
    kept = store if store is not None else Store(settings.db).create()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        kept.close()

    app = FastAPI(
        title="preshuffle",
        version=our_version(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    problem.install(app)
    openapi.install(
        app,
        [Query, routes_resolve.Batch, ReplicaReport, routes_kernels.TableFiles, Observation, routes_check.Observations],
    )
    answers = Answers(registry)
    routes_registry.install(app, answers)
    routes_kernels.install(app, kept, answers)
    routes_resolve.install(app, answers)
    routes_check.install(app, answers)
    routes_deployments.install(app, kept, answers)
    routes_health.install(app, kept, registry)
    page.install(app, kept, answers)
    return app


def load_registry(settings: Settings) -> Registry:
    """Load the registry that the settings name.

    Raises:
        BookError: an overlay does not load.
        ServeError: kernel tables do not load.
    """
    tables: Literal["auto"] | tuple[str, ...] | None = settings.tables or None
    if tables == ("auto",):
        tables = "auto"
    try:
        return Registry.load(settings.book, tables)
    except (TableError, ImportError, OSError) as error:
        raise ServeError(f"kernel tables do not load: {error}") from None


def serve(settings: Settings) -> None:
    """Run the service until SIGTERM or SIGINT.

    Everything that can be wrong is found before anything is changed: the host, the registry, the store's file, the
    port; only then are the store's tables created.

    Raises:
        ServeError: the address is not allowed or taken, or kernel tables do not load.
        StoreError: the store's file cannot be used.
        BookError: an overlay does not load.
    """
    check_host(settings)
    registry = load_registry(settings)
    store = Store(settings.db)
    with bind(settings.host, settings.port) as listener:
        app = create_app(settings, registry, store.create())
        if not is_loopback(settings.host):
            log.warning("INSECURE: %s is open to everyone who can reach it; nothing asks who they are", settings.host)
        url = url_of(listener, settings.host)
        what = f"registry {registry.digest[:19]}, store {store.path}"
        print(f"preshuffle {our_version()} serves {url} ({what})", flush=True)
        run(app, listener)

"""The service: its parts, the application made of them, and ``serve``."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from anyio import to_thread
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

import preshuffle
from preshuffle.api.answers import Answers, ListingCache, Matrices, ResponseCache
from preshuffle.api.errors import ServeError
from preshuffle.api.fleet import AcknowledgeRequest, Description, ReplicaReport, SilenceRequest
from preshuffle.api.log_lines import LOGGER
from preshuffle.api.notify import Notices, read_headers
from preshuffle.api.overlay_files import filled_overlays
from preshuffle.api.pages import install as pages
from preshuffle.api.rollout import Candidate, Planner
from preshuffle.api.routes import (
    books,
    check,
    conformance,
    deployments,
    events,
    fleet,
    health,
    history,
    kernels,
    matrix,
    plan,
    resolve,
    schemas,
)
from preshuffle.api.routes import metrics as metrics_routes
from preshuffle.api.routes import registry as registry_routes
from preshuffle.api.server import Find, Front, HeartbeatRoute, bind, check_host, own_names, run, served_beside, url_of
from preshuffle.api.settings import Settings
from preshuffle.api.store import Quota, Retention, Store
from preshuffle.api.table_files import load_tables
from preshuffle.api.upkeep import (
    BackgroundLoop,
    ChangeFeed,
    FleetMetrics,
    Heartbeats,
    KernelLibrary,
    Watching,
    watch_book,
    watch_tables,
    watch_tokens,
)
from preshuffle.api.web import (
    Access,
    Metrics,
    Tokens,
    load_tokens,
    openapi,
    problem,
    repeated_params,
    say_first,
    set_up,
)
from preshuffle.registry import Registry
from preshuffle.registry.kernels import TableError
from preshuffle.registry.values.conformance import ConformanceReport
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.query import Query

BODIES: Final[list[type[BaseModel]]] = [
    Query,
    resolve.Batch,
    ReplicaReport,
    Description,
    SilenceRequest,
    AcknowledgeRequest,
    kernels.TableFiles,
    Candidate,
    Observation,
    check.Observations,
    ConformanceReport,
]
"""Request bodies that the OpenAPI document describes beside those of the routes."""
log = logging.getLogger(LOGGER)

_GC_THRESHOLD: Final = 10_000
"""New objects before a collection."""


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of one running service."""

    store: Store
    metrics: Metrics
    answers: Answers
    library: KernelLibrary
    watching: Watching
    fleet: FleetMetrics
    heartbeats: Heartbeats
    planner: Planner
    feed: ChangeFeed
    notices: Notices
    signal: events.ChangeSignal
    background: BackgroundLoop
    responses: ResponseCache
    listings: Mapping[str, ListingCache]
    kernels: ListingCache
    matrices: Matrices
    matrix_responses: ResponseCache

    def end_streams(self) -> None:
        """End event streams and plans, so that the server can stop."""
        self.signal.close()
        self.planner.stop()


def make_service(settings: Settings, registry: Registry, store: Store, access: Access) -> Service:
    """Construct the parts of a service; nothing runs yet.

    Raises:
        StoreError: the store does not answer, or holds kernel tables that this version cannot read.
    """
    metrics = Metrics()
    answers = Answers(registry, observe=metrics.decided, root=settings.root)
    library = KernelLibrary(store, answers)
    signal = events.ChangeSignal()

    def replace_tokens(tokens: Tokens) -> None:
        access.tokens = tokens
        signal.end_streams()  # a stream that runs may be one of a revoked token

    watching = Watching(
        watch_book(settings.book, library.replace_book, lambda: answers.registry.digest),
        watch_tables(
            settings.tables,
            library.replace_tables,
            lambda: library.initial_digest,
            lambda: answers.registry.book.families,
        ),
        watch_tokens(settings.tokens, replace_tokens),
    )
    retention = Retention(settings.history_rows, settings.history_days)
    feed = ChangeFeed(store)
    return Service(
        store=store,
        metrics=metrics,
        answers=answers,
        library=library,
        watching=watching,
        fleet=FleetMetrics(store, answers, watching),
        heartbeats=Heartbeats(store),
        planner=Planner(store, answers),
        feed=feed,
        notices=Notices.subscribe(settings, store, feed),
        signal=signal,
        background=BackgroundLoop(store, answers, library, watching, retention, feed, signal.changed),
        responses=ResponseCache(answers),
        listings=registry_routes.listing_caches(answers),
        kernels=kernels.listing_cache(library, answers),
        matrices=Matrices(answers),
        matrix_responses=ResponseCache(answers, 16),
    )


def create_app(
    settings: Settings,
    registry: Registry,
    store: Store | None = None,
    access: Access | None = None,
    hosts: frozenset[str] | None = None,
) -> FastAPI:
    """Build the application; ``app.state.front`` is what a server runs.

    Args:
        settings: locates the store, if none is given.
        registry: the first one that answers.
        store: an open store; it is closed when the service shuts down.
        access: who may do what; left out, it is read from the settings' file of tokens.
        hosts: names that requests may be for, besides loopback addresses; left out, any.

    Raises:
        StoreError: the store cannot be opened.
        ServeError: the file of tokens cannot be read or is not valid.
    """
    access = access if access is not None else access_of(settings)
    service = make_service(
        settings, registry, store if store is not None else Store(settings.db, quota_of(settings)).create(), access
    )
    app = FastAPI(
        title="preshuffle",
        version=preshuffle.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=partial(_lifespan, service),
    )
    problem.install(app)
    openapi.install(app, BODIES, settings.root)
    for router in _routers(service):
        app.router.routes.extend(router.routes)
    pages.install(app, service.store, service.answers, service.matrices, service.watching, service.planner, settings)
    repeated_params.install(app)
    app.state.service = service
    app.state.front = Front(
        app,
        access,
        service.metrics,
        _cached_paths(service),
        HeartbeatRoute(service.heartbeats),
        hidden_of(settings),
        service.watching.tokens,
        hosts,
        settings.root,
    )
    return app


def _routers(service: Service) -> tuple[APIRouter, ...]:
    """Return the routers, one for each resource."""
    store, answers = service.store, service.answers
    return (
        resolve.router(answers, service.responses),  # first, as the router tries them in turn
        registry_routes.router(service.listings),
        kernels.router(service.library, answers, service.kernels),
        matrix.router(answers, service.matrices, service.matrix_responses),
        check.router(answers),
        schemas.router(answers.root),
        fleet.listing.router(store, answers),
        fleet.marks.router(store),
        deployments.router(store, answers, service.heartbeats),
        conformance.router(store),
        history.router(store),
        books.router(store, answers),
        plan.router(service.planner),
        health.router(store, answers, service.watching),
        metrics_routes.router(service.metrics, service.fleet, service.notices.collector),
        events.router(service.signal),
    )


def _cached_paths(service: Service) -> dict[str, Find]:
    """Return the caches that the front answers from, by path."""
    listings = {path: cache.find for path, cache in service.listings.items()}
    return {
        **listings,
        kernels.KERNELS_PATH: service.kernels.find,
        resolve.RESOLVE_PATH: service.responses.find,
        matrix.MATRIX_PATH: service.matrix_responses.find,
    }


_THREADS: Final = 4
"""Threads for what is computed beside the event loop; the store has threads of its own."""
_SWITCH_S: Final = 0.001
"""How long one of them may keep Python's lock from the event loop."""


@asynccontextmanager
async def _lifespan(service: Service, _app: FastAPI) -> AsyncIterator[None]:
    to_thread.current_default_thread_limiter().total_tokens = _THREADS
    sys.setswitchinterval(_SWITCH_S)
    service.background.start()
    service.notices.start()
    yield
    await to_thread.run_sync(service.background.stop)
    await to_thread.run_sync(service.notices.stop)
    service.store.close()


def access_of(settings: Settings) -> Access:
    """Return the access rules of the settings.

    Raises:
        ServeError: the file of tokens cannot be read or is not valid.
    """
    return Access(load_tokens(settings.tokens) if settings.tokens else None, settings.reads)


def hidden_of(settings: Settings) -> frozenset[str]:
    """Return the paths that only the management port serves."""
    return frozenset() if settings.management_port is None else frozenset({metrics_routes.METRICS_PATH})


def quota_of(settings: Settings) -> Quota:
    """Return the quota of the settings."""
    mib = 1 << 20
    return Quota(
        replicas=settings.max_replicas,
        bytes=int(settings.max_mib * mib),
        token_replicas=settings.token_replicas,
        token_bytes=int(settings.token_mib * mib),
    )


def load_registry(settings: Settings) -> Registry:
    """Load the registry that the settings name.

    Raises:
        BookError: an overlay does not load.
        ServeError: kernel tables do not load.
    """
    book = Registry.load(filled_overlays(settings.book)).book
    try:
        return Registry(book, load_tables(settings.tables))
    except (TableError, ImportError, OSError) as error:
        raise ServeError(f"kernel tables do not load: {error}") from None


def serve(settings: Settings) -> None:
    """Run the service until SIGTERM or SIGINT.

    Host, registry, store and port are checked first; only then are the store's tables created.

    Raises:
        ServeError: the address is not allowed or taken, or tokens or kernel tables do not load.
        StoreError: the store cannot be used.
        BookError: an overlay does not load.
    """
    check_host(settings)
    access = access_of(settings)
    registry = load_registry(settings)
    read_headers(settings.webhook_header_file)
    store = Store(settings.db, quota_of(settings))
    set_up(settings.log, settings.log_level)
    with ExitStack() as stack:
        stack.callback(store.close)
        listener = stack.enter_context(bind(settings.host, settings.port))
        port = settings.management_port
        management = None if port is None else stack.enter_context(bind(settings.host, port))
        hosts = own_names(settings)
        app = create_app(settings, registry, store.create(), access, hosts)
        parts = f"registry {registry.digest[:19]}, store {store.name}"
        if management is not None:
            stack.enter_context(served_beside(app, management, settings.head_seconds, hosts))
            parts += f", management {url_of(management, settings.host)}"
        gc.set_threshold(_GC_THRESHOLD)
        gc.collect()
        gc.freeze()  # book and application live as long as the process: no collection visits them
        url = url_of(listener, settings.host) + settings.root
        first = f"preshuffle {preshuffle.__version__} serves {url} ({parts})"
        say_first(settings.log, first, event="start", version=preshuffle.__version__, url=url, registry=registry.digest)
        run(app.state.front, listener, app.state.service.end_streams, settings.head_seconds)
        log.info("preshuffle %s has stopped", preshuffle.__version__, extra={"event": "stop"})

"""The service: the registry over HTTP, deployments in a store, and a page for operators."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Final

from anyio import to_thread
from fastapi import FastAPI

from preshuffle.api.answers import Answers, HotResolve, our_version
from preshuffle.api.errors import ServeError
from preshuffle.api.fleet import ReplicaReport
from preshuffle.api.pages import install as pages
from preshuffle.api.rollout import Candidate, Planner
from preshuffle.api.routes import books as routes_books
from preshuffle.api.routes import check as routes_check
from preshuffle.api.routes import deployments as routes_deployments
from preshuffle.api.routes import events
from preshuffle.api.routes import health as routes_health
from preshuffle.api.routes import history as routes_history
from preshuffle.api.routes import kernels as routes_kernels
from preshuffle.api.routes import metrics as routes_metrics
from preshuffle.api.routes import plan as routes_plan
from preshuffle.api.routes import registry as routes_registry
from preshuffle.api.routes import resolve as routes_resolve
from preshuffle.api.server import Door, HotBeats, bind, check_host, run, served_beside, url_of
from preshuffle.api.settings import Settings
from preshuffle.api.store import Retention, Store
from preshuffle.api.table_files import load_tables
from preshuffle.api.upkeep import FleetMetrics, Heartbeats, Keeper, Watching, watch_book, watch_tables
from preshuffle.api.web import Access, Metrics, load_tokens, openapi, problem, set_up
from preshuffle.registry import Registry
from preshuffle.registry.kernels import TableError
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.query import Query

log = logging.getLogger("preshuffle.api")
_OBJECTS: Final = 10_000
"""New ones before the collector looks at them."""


def create_app(
    settings: Settings, registry: Registry, store: Store | None = None, access: Access | None = None
) -> FastAPI:
    """Build the service.

    Args:
        settings: where the store lies, if none is given.
        registry: what answers; another registry is another service.
        store: an open store; it is closed when the service shuts down.
        access: who may do what; left out, it is read from the settings' file of tokens.

    Raises:
        StoreError: the store cannot be opened.
        ServeError: the file of tokens cannot be read or is not valid.
    """
    kept = store if store is not None else Store(settings.db).create()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        keeper.start()
        yield
        await to_thread.run_sync(keeper.stop)
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
        [
            Query,
            routes_resolve.Batch,
            ReplicaReport,
            routes_kernels.TableFiles,
            Candidate,
            Observation,
            routes_check.Observations,
        ],
    )
    answers = Answers(registry)
    routes_registry.install(app, answers)
    library = routes_kernels.install(app, kept, answers)
    watching = Watching(
        watch_book(settings.book, library.replace_book, lambda: answers.registry.digest),
        watch_tables(
            settings.tables,
            library.replace_tables,
            lambda: library.initial_digest,
            lambda: answers.registry.book.families,
        ),
    )
    keeper = app.state.keeper = Keeper(
        kept, answers, library, watching, Retention(settings.history_rows, settings.history_days)
    )
    hot = HotResolve(answers)
    routes_resolve.install(app, answers, hot)
    routes_check.install(app, answers)
    heartbeats = Heartbeats(kept)
    routes_deployments.install(app, kept, answers, heartbeats)
    routes_history.install(app, kept)
    routes_books.install(app, kept, answers)
    planner = Planner(kept, answers)
    routes_plan.install(app, planner)
    routes_health.install(app, kept, answers, watching)
    pages.install(app, kept, answers, watching, planner)
    metrics = Metrics()
    metrics.watch(FleetMetrics(kept, answers, watching))
    answers.observe = metrics.resolved
    routes_metrics.install(app, metrics)
    heard = events.Events()
    keeper.followers.append(heard.changed)
    events.install(app, heard)

    def ends() -> None:
        heard.close()
        planner.stop()

    app.state.ends = ends
    admits = access if access is not None else access_of(settings)
    app.state.door = Door(app, admits, metrics, {"/v1/resolve": hot}, HotBeats(heartbeats), hidden_of(settings))
    return app


def access_of(settings: Settings) -> Access:
    """Return who may do what.

    Raises:
        ServeError: the file of tokens cannot be read or is not valid.
    """
    return Access(load_tokens(settings.tokens) if settings.tokens else None, settings.reads)


def hidden_of(settings: Settings) -> frozenset[str]:
    """Return the paths that the management port has to itself."""
    return frozenset() if settings.management_port is None else frozenset({routes_metrics.PATH})


def load_registry(settings: Settings) -> Registry:
    """Load the registry that the settings name.

    Raises:
        BookError: an overlay does not load.
        ServeError: kernel tables do not load.
    """
    book = Registry.load(settings.book).book
    try:
        return Registry(book, load_tables(settings.tables))
    except (TableError, ImportError, OSError) as error:
        raise ServeError(f"kernel tables do not load: {error}") from None


def serve(settings: Settings) -> None:
    """Run the service until SIGTERM or SIGINT.

    Everything that can be wrong is found before anything is changed: the host, the registry, the store's file, the
    port; only then are the store's tables created.

    Raises:
        ServeError: the address is not allowed or taken, or tokens or kernel tables do not load.
        StoreError: the store cannot be used.
        BookError: an overlay does not load.
    """
    check_host(settings)
    access = access_of(settings)
    registry = load_registry(settings)
    store = Store(settings.db)
    set_up(settings.log)
    with ExitStack() as stack:
        listener = stack.enter_context(bind(settings.host, settings.port))
        beside = settings.management_port
        managing = None if beside is None else stack.enter_context(bind(settings.host, beside))
        app = create_app(settings, registry, store.create(), access)
        what = f"registry {registry.digest[:19]}, store {store.name}"
        if managing is not None:
            stack.enter_context(served_beside(app, managing, settings.head_seconds))
            what += f", management {url_of(managing, settings.host)}"
        gc.set_threshold(_OBJECTS)
        gc.collect()
        gc.freeze()  # the book and the application are here to stay: no collection looks through them again
        print(f"preshuffle {our_version()} serves {url_of(listener, settings.host)} ({what})", flush=True)
        run(app.state.door, listener, app.state.ends, settings.head_seconds)

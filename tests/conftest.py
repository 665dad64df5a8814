"""Fixtures that several test modules share."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, settings

from support.aiter.aiter_wheel import AiterFunctions, aiter_modules

if TYPE_CHECKING:
    from _pytest.reports import CollectReport

    from preshuffle.api.store.store import Store

# Each worker computes on one thread, and so does what it starts: threads of several that wait for each other in turns
# take up to ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Large tensors in huge pages where the system has them: a third of the time of tests on whole layers is page faults.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
torch.set_num_threads(1)  # it may have been imported before
# Without bytecode every worker, and every process that a test starts, compiles the project and the book anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A third of collecting was garbage collection, of objects that nearly all stay.
gc.disable()

# Other processes share the machine: how long an example takes says nothing of the code. One commit has one result: new
# examples are drawn in `make soak`.
settings.register_profile("soak", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same examples", settings.get_profile("soak"), derandomize=True, database=None)
settings.load_profile("same examples")


def pytest_configure(config: pytest.Config) -> None:
    """Give workers one file after the other, in the order of collecting, unless ``--dist`` says otherwise.

    By itself xdist deals out large parts of all tests: the worker with the slow ones goes on for minutes after the
    others, and what a module sets up once is set up by two workers.
    """
    if config.getoption("dist", "no") == "load":
        config.option.dist = "loadfile"
        config.option.loadscopereorder = False


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, CollectReport, CollectReport]:
    """Begin collecting at another folder in each worker: what one has compiled, the others load."""
    report = yield
    if collector.path == Path(__file__).parent and report.passed:
        worker, workers = os.environ.get("PYTEST_XDIST_WORKER", "gw0"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
        first = len(report.result) * int(worker.removeprefix("gw")) // int(workers)
        report.result = [*report.result[first:], *report.result[:first]]
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with files that install, serve and wait: at the end, workers can share short ones evenly."""
    items.sort(key=lambda item: (not item.nodeid.startswith(("tests/docs/", "tests/system/")), item.path.parts))


def pytest_collection_finish() -> None:
    """Spare the garbage collector what importing and collecting made, which stays to the end."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def aiter() -> AiterFunctions:
    """Return AITER's own layout functions; `sys.modules` is already clean again when a test gets them."""
    with aiter_modules() as functions:
        return functions


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a new, empty database; once of each kind."""
    from support.service.stores import url_of

    return url_of(request.param, tmp_path)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """Return a new store; once on each kind of database."""
    from preshuffle.api.store.store import Store

    made = Store(database).create()
    yield made
    made.close()

"""Fixtures that several test modules share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from support.aiter.aiter_wheel import AiterFunctions, aiter_modules

if TYPE_CHECKING:
    from preshuffle.api.store.store import Store

# Other processes share the machine: how long an example takes says nothing of the code.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


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

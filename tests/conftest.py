"""Fixtures that several test modules share."""

import pytest

from support.aiter_wheel import AiterFunctions, aiter_modules


@pytest.fixture(scope="session")
def aiter() -> AiterFunctions:
    """Return AITER's own layout functions; `sys.modules` is already clean again when a test gets them."""
    with aiter_modules() as functions:
        return functions

"""The examples in the registry's docstrings run, and every module's public names have a docstring."""

import doctest
import pkgutil
from importlib import import_module

import pytest

import preshuffle.registry

MODULES = [item.name for item in pkgutil.walk_packages(preshuffle.registry.__path__, "preshuffle.registry.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    module = import_module(name)
    assert module.__doc__, f"{name} does not say what it is"
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test.name for name in MODULES for test in finder.find(import_module(name)) if test.examples]
    assert {
        "preshuffle.registry.registry.Registry",
        "preshuffle.registry.registry.Registry.query_from_hf_config",
    } <= set(found)


def test_the_public_names_are_there() -> None:
    assert sorted(preshuffle.registry.__all__) == preshuffle.registry.__all__
    assert all(getattr(preshuffle.registry, name).__doc__ for name in preshuffle.registry.__all__)

"""Work in a process beside the service: what it returns, what it raises, and that nobody waits for one that died."""

import os
import threading

import pytest

from preshuffle.api.upkeep.worker_process import Aside, AsideError
from preshuffle.registry import Query, Registry

QUERY = Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype="fp4x2", tp=2)


def recipe_of(registry: Registry, query: Query) -> tuple[int, str]:
    return os.getpid(), registry.resolve(query).model_dump_json()


def test_a_registry_decides_the_same_in_another_process() -> None:
    registry = Registry.default()
    pid, decided = Aside().run(recipe_of, registry, QUERY)
    assert pid != os.getpid()
    assert decided == registry.resolve(QUERY).model_dump_json()


def test_what_is_raised_there_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        Aside().run(divmod, 1, 0)


def test_a_process_that_dies_at_its_start_is_not_waited_for() -> None:
    from support.tensors.dying_module import work  # whoever imports this file must not die of it

    found: list[object] = []

    def run() -> None:
        try:
            found.append(Aside().run(work, b"a" * 1_000_000))  # more than a pipe holds
        except AsideError as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout=120)
    assert [type(one) for one in found] == [AsideError]

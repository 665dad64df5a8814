"""Pipeline stages of engines: their own layers, under their own numbers, from the first rank of each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from preshuffle.api import client
from preshuffle.layouts.engines.plugins.model_load import ModelLoad, stage_of
from preshuffle.registry import Observation, Query, Registry
from support.plugins.fake_engines import conversion_of

SEEN = Observation(query=Query(model="openai/gpt-oss-20b", arch="gfx950"))


def group(rank: int, size: int) -> Callable[[], Any]:
    return lambda: SimpleNamespace(rank_in_group=rank, world_size=size)


def set_groups(engine: str, monkeypatch: pytest.MonkeyPatch, **functions: Callable[[], Any]) -> None:
    """Let an engine's module have these functions."""
    facts = conversion_of(engine).pipeline
    assert facts is not None
    path, _, name = facts.group.rpartition(".")
    assert (path, name) == (facts.peers.rpartition(".")[0], "get_pp_group")
    module = ModuleType(path)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, path, module)


def never() -> Any:
    raise AssertionError("pipeline model parallel group is not initialized")


@pytest.mark.parametrize("engine", ["vllm", "sglang", "atom"])
def test_engines_groups_say_the_stage(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = conversion_of(engine).pipeline
    assert stage_of(facts) is None  # nobody has imported the module
    set_groups(engine, monkeypatch, get_pp_group=group(2, 4), get_tp_group=group(1, 8))
    stage = stage_of(facts)
    assert stage is not None
    assert (stage.number, stage.stages, stage.is_first_peer) == (2, 4, False)
    for functions in (
        {"get_pp_group": group(0, 1), "get_tp_group": group(0, 8)},
        {"get_pp_group": never, "get_tp_group": never},
        {},
    ):
        set_groups(engine, monkeypatch, **functions)
        assert stage_of(facts) is None


@pytest.mark.parametrize(
    ("rank", "peer", "layers", "to_service", "sent"),
    [
        (1, 0, (18, 19), True, [(1027, ["18-19"])]),
        (1, 0, (18, 19), False, []),
        (0, 0, (), True, [(3, [])]),
        (0, 1, (), False, []),
        (None, 0, (0, 1), True, [(3, ["0-1"])]),
        (None, 0, (), True, []),
    ],
    ids=["a stage", "its other ranks", "a stage without MoE layers", "its other ranks", "no stages", "no layers"],
)
def test_a_stage_reports_its_layers_under_its_number(
    rank: int | None,
    peer: int,
    layers: tuple[int, ...],
    to_service: bool,
    sent: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PRESHUFFLE_SERVICE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PRESHUFFLE_SERVICE_DEPLOYMENT", "prod")
    monkeypatch.setenv("PRESHUFFLE_SERVICE_REPLICA", "3")
    monkeypatch.setenv("PRESHUFFLE_SERVICE_SPOOL", "off")
    made: list[Any] = []

    class Silent(client.Reporter):
        """A reporter that keeps what it would send."""

        def report(self, observed: Any, **fields: Any) -> Any:
            if self.problem is None:
                made.append((self.settings.number, [one.layers for one in observed]))
            return SimpleNamespace(result=lambda: None)

    monkeypatch.setattr(client, "Reporter", Silent)
    if rank is not None:
        set_groups("vllm", monkeypatch, get_pp_group=group(rank, 2), get_tp_group=group(peer, 2))
    load = ModelLoad(Registry.default())
    for number in layers:
        load.add(number, SEEN, None)
    load.send(to_service=to_service, stage=stage_of(conversion_of("vllm").pipeline))
    for reporter in load._reporters.values():
        reporter.close()
    assert made == sent

"""Plugins loaded by engines' own mechanisms: off, shadow, replace; right, wrong and unknown engines."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from preshuffle.layouts import query_of_layer, stamp_of
from preshuffle.layouts.engines import environment
from preshuffle.layouts.engines.plugins import VARIABLE, EngineHook
from preshuffle.layouts.engines.plugins import hook as hooks
from preshuffle.registry import Decision, Registry
from support.plugins.fake_engines import (
    METHODS,
    conversion_of,
    converting,
    installed,
    layers_of,
    load_model,
    load_plugins,
)

ENGINES = ("vllm", "sglang", "atom")
installing = sys.modules["preshuffle.layouts.engines.plugins.install"]
INPUT_SCALES = {"w13_input_scale", "w2_input_scale"}  # a dynamic checkpoint has none
HERE: dict[str, Any] = {"arch": "gfx950", "aiter": "0.1.20"}
SWITCHES = {"vllm": {"VLLM_ROCM_USE_AITER": "1"}, "sglang": {"SGLANG_USE_AITER": "1"}, "atom": {}}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An engine that is installed, on a GPU of AMD's."""
    name: str = request.param
    monkeypatch.setattr(environment, "_gpu", lambda _: {"arch": HERE["arch"]})
    monkeypatch.setattr(environment, "_aiter", lambda _: {"aiter": HERE["aiter"]})
    monkeypatch.setattr(installing, "_INSTALLED", {})
    monkeypatch.delenv(VARIABLE, raising=False)
    for switch, value in SWITCHES[name].items():
        monkeypatch.setenv(switch, value)
    with installed(name, tmp_path) as module:
        module.convert = converting(decided)
        yield module


def decided(layer: Any) -> Decision:
    name = type(layer.quant_method).__module__.partition(".")[0]
    facts = conversion_of(name)
    here = {**HERE, "env": SWITCHES[name]}
    found = query_of_layer(layer, engine=f"{name}@{facts.versions[0]}", model="gpt-oss-20b", **here)
    return Registry.default().resolve(found.query)


def loaded(engine: Any, mode: str, monkeypatch: pytest.MonkeyPatch) -> tuple[EngineHook, list[Any]]:
    """What a plugin in this mode saw of a model that was loaded, and the model's layers."""
    monkeypatch.setenv(VARIABLE, mode)
    load_plugins(engine.__name__)
    layers = layers_of(engine.__name__)
    load_model(engine.__name__, layers)
    hook: EngineHook = installing._INSTALLED[engine.__name__]
    assert hook.model_load.reply is not None
    hook.model_load.reply.join()
    return hook, layers


def verdicts(hook: EngineHook, layer: int = 0) -> dict[str, str]:
    return {one.role: one.verdict for one in hook.comparisons[list(hook.comparisons)[layer]]}


def test_shadow_finds_nothing_where_bytes_agree(
    engine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "preshuffle.plugins")
    hook, _ = loaded(engine, "shadow", monkeypatch)
    assert (hook.counts["layers"], hook.counts["errors"], hook.counts["differs"]) == (2, 0, 0), caplog.text
    assert {role for role, verdict in verdicts(hook).items() if verdict != "equal"} <= INPUT_SCALES
    assert hook.model_load.sent == 1
    assert sorted(hook.model_load.observations) == [0, 1]
    seen = hook.model_load.observations[0]
    assert seen.query.engine is not None
    assert seen.query.engine.name == engine.__name__
    assert {tensor.layout for tensor in seen.applied.tensors.values()} >= {"plain"}
    assert "the layers as loaded: " in caplog.text
    assert "mismatch" not in caplog.text


def flip_a_byte(tensors: dict[str, torch.Tensor]) -> None:
    tensors["w2_weight"].view(torch.uint8)[-1, 0, 0] ^= 1


def lay_scales_out_plainly(tensors: dict[str, torch.Tensor]) -> None:
    tensors["w13_weight_scale"].view(torch.uint8).copy_(tensors["w13_weight_scale"].view(torch.uint8).flip(0))


def lose_the_tag(tensors: dict[str, torch.Tensor]) -> None:
    tensors["w13_weight"] = tensors["w13_weight"].clone()


def of_another_dtype(tensors: dict[str, torch.Tensor]) -> None:
    tensors["w2_bias"] = tensors["w2_bias"].to(torch.float64)


@pytest.mark.parametrize(
    ("spoil", "role", "reason"),
    [
        (flip_a_byte, "w2_weight", "1 of "),
        (lay_scales_out_plainly, "w13_weight_scale", "bytes of experts (0, 3) differ"),
        (lose_the_tag, "w13_weight", "AITER's tag is_shuffled is not on the tensor"),
        (of_another_dtype, "w2_bias", "dtype torch.float64"),
    ],
)
@pytest.mark.parametrize("engine", ["vllm"], indirect=True)
def test_shadow_finds_what_an_engine_does_wrong(
    spoil: Any, role: str, reason: str, engine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine.convert = converting(decided, spoil)
    hook, layers = loaded(engine, "shadow", monkeypatch)
    assert {name for name, verdict in verdicts(hook).items() if verdict == "differs"} == {role}
    assert hook.counts["differs"] == len(layers)
    found = next(one for one in hook.comparisons["model.layers.0.mlp.experts"] if one.role == role)
    assert reason in "; ".join(found.reasons)
    assert f"model.layers.0.mlp.experts: {role} differs from the registry's: " in caplog.text
    observed = hook.model_load.observations[0].applied.tensors
    wanted = decided(layers[0]).tensors
    assert {name for name in wanted if name in observed and observed[name].layout != wanted[name].layout} <= {role}


@pytest.mark.parametrize("engine", ["sglang"], indirect=True)
def test_a_wrong_layout_is_named_in_the_report(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = decided

    def other(layer: Any) -> Decision:
        """The decision with w2 laid out as nobody decided."""
        decision = facts(layer)
        w2 = decision.tensors["w2_weight"].model_copy(update={"layout": "plain", "is_shuffled": True})
        return decision.model_copy(update={"tensors": {**decision.tensors, "w2_weight": w2}})

    engine.convert = converting(other)
    hook, _ = loaded(engine, "shadow", monkeypatch)
    assert verdicts(hook)["w2_weight"] == "differs"
    assert hook.model_load.observations[1].applied.tensors["w2_weight"].layout == "plain"


@pytest.mark.parametrize("engine", ["atom"], indirect=True)
def test_rows_that_a_model_moves_before_are_sampled_before(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "shadow")
    load_plugins("atom")
    (layer,) = layers_of("atom", 1)
    plain = {name: parameter.data.clone() for name, parameter in layer.named_parameters()}
    block = import_module("atom.models.gpt_oss").MLPBlock()
    block.experts = layer
    block.process_weights_after_loading()
    layer.w13_weight.data.view(torch.uint8).copy_(plain["w13_weight"].view(torch.uint8).flip(1))
    convert = engine.convert

    def undo_and_convert(converted: Any) -> None:
        converted.w13_weight.data.copy_(plain["w13_weight"])
        convert(converted)

    engine.convert = undo_and_convert
    load_model("atom", [layer])
    hook = installing._INSTALLED["atom"]
    assert block.moved
    assert verdicts(hook)["w13_weight"] == "equal"


@pytest.mark.parametrize("mode", ["shadow", "replace"])
def test_what_is_converted_already_is_left_alone(mode: str, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hook, layers = loaded(engine, mode, monkeypatch)
    before = dict(hook.counts)
    laid_out = [layer.w13_weight.view(torch.uint8).clone() for layer in layers]
    engine.convert = lambda _: None
    load_model(engine.__name__, layers)
    assert all(
        torch.equal(layer.w13_weight.view(torch.uint8), was) for layer, was in zip(layers, laid_out, strict=True)
    )
    assert {**hook.counts, "replaced": 0} == {**before, "replaced": 0}


@pytest.mark.parametrize("engine", ["vllm"], indirect=True)
def test_reloaded_weights_are_compared_again(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hook, layers = loaded(engine, "shadow", monkeypatch)
    for layer, fresh in zip(layers, layers_of("vllm"), strict=True):
        for name, parameter in fresh.named_parameters():
            setattr(layer, name, parameter)
    engine.convert = converting(decided, flip_a_byte)
    load_model("vllm", layers)
    assert (hook.counts["layers"], hook.counts["differs"]) == (4, 2)


@pytest.mark.parametrize("place", ["take_samples", "observe_converted", "query_of_layer"])
@pytest.mark.parametrize("engine", ["vllm"], indirect=True)
def test_an_error_of_the_plugin_does_not_reach_the_engine(
    place: str, engine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("of the plugin's own")

    monkeypatch.setattr(hooks, place, fail)
    monkeypatch.setenv(VARIABLE, "shadow")
    load_plugins("vllm")
    layers = layers_of("vllm")
    load_model("vllm", layers)
    assert all(layer.w13_weight.is_shuffled for layer in layers)
    assert installing._INSTALLED["vllm"].counts["errors"] == len(layers)
    assert caplog.text.count("model.layers.1.mlp.experts: the plugin failed; the engine goes on") == 1


@pytest.mark.parametrize("engine", ["vllm"], indirect=True)
def test_an_error_of_the_engine_stays_the_engines(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise MemoryError("of the engine's own")

    engine.convert = fail
    monkeypatch.setenv(VARIABLE, "shadow")
    load_plugins("vllm")
    with pytest.raises(MemoryError, match="of the engine's own"):
        load_model("vllm", layers_of("vllm"))


@pytest.mark.parametrize(("value", "warnings"), [(None, 0), ("", 0), ("Shadow", 1), ("1", 1)])
def test_off_touches_nothing(
    value: str | None, warnings: int, engine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    name = engine.__name__
    facts = conversion_of(name)
    module = import_module(next(one for one, classes in facts.classes.items() if METHODS[name] in classes))
    before = dict(vars(getattr(module, METHODS[name])))
    load_plugins(name)
    assert dict(vars(getattr(module, METHODS[name]))) == before
    assert installing._INSTALLED == {}
    # once for each distribution that has the entry point: where the product itself is installed there are two
    assert {record.levelname for record in caplog.records} == ({"WARNING"} if warnings else set())
    assert len({record.getMessage() for record in caplog.records}) == warnings
    assert "valid: shadow, replace; the plugin stays off" in caplog.text or not warnings


@pytest.mark.parametrize("version", ["0.1.0", "99.0.0"])
@pytest.mark.parametrize("name", ENGINES)
def test_a_release_that_was_not_read_is_refused(
    name: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(installing, "_INSTALLED", {})
    monkeypatch.setenv(VARIABLE, "shadow")
    with installed(name, tmp_path, version):
        load_plugins(name)
    known = ", ".join(conversion_of(name).versions)
    assert f"the plugin was not written for {name} {version}, only for: {known}; it stays off" in caplog.text
    assert installing._INSTALLED == {}


def test_replace_prepares_layers_where_nothing_else_is_made(
    engine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Any] = []
    convert = engine.convert

    def counting(layer: Any) -> None:
        calls.append(layer)
        convert(layer)

    engine.convert = counting
    hook, layers = loaded(engine, "replace", monkeypatch)
    replaced = METHODS[engine.__name__] in conversion_of(engine.__name__).replaceable
    assert calls == ([] if replaced else layers)
    assert (hook.counts["replaced"], hook.counts["kept"]) == ((2, 0) if replaced else (0, 2))
    assert all(layer.w13_weight.is_shuffled for layer in layers)
    assert all((stamp_of(layer.w2_weight) is not None) == replaced for layer in layers)
    assert ("the engine's own conversion is kept: " in caplog.text) != replaced


@pytest.mark.parametrize("engine", ["sglang"], indirect=True)
def test_replace_keeps_the_engines_conversion_where_prepare_refuses(
    engine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("not this one")

    monkeypatch.setattr(hooks, "prepare", refuse)
    hook, layers = loaded(engine, "replace", monkeypatch)
    assert hook.counts["kept"] == len(layers)
    assert all(layer.w13_weight.is_shuffled for layer in layers)
    assert "the engine's own conversion is kept: ValueError: not this one" in caplog.text


def test_entry_points_import_nothing_while_they_are_off() -> None:
    shown = "print([name for name in sys.modules if name.startswith(('preshuffle', 'torch'))])"
    code = f"import sys; import preshuffle.plugins as p; p.vllm(); p.sglang(); p.atom(); {shown}"
    clean = {name: value for name, value in os.environ.items() if name != VARIABLE}
    found = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['preshuffle', 'preshuffle.plugins']"


@pytest.mark.slow
def test_atoms_launcher_registers_in_every_process_that_is_spawned(tmp_path: Path) -> None:
    """Its servers start engines, and engines start workers, by spawning."""
    (tmp_path / "spawned.py").write_text(
        "import multiprocessing, sys\n"
        "def loaded():\n    return 'preshuffle.layouts.engines.plugins.atom' in sys.modules\n"
        "def worker(queue):\n    queue.put(loaded())\n"
        "def engine(queue):\n    queue.put(loaded())\n    start(worker, queue)\n"
        "def start(work, queue):\n"
        "    process = multiprocessing.get_context('spawn').Process(target=work, args=(queue,))\n"
        "    process.start()\n    process.join()\n"
    )
    (tmp_path / "server.py").write_text(
        "import multiprocessing, sys\nimport spawned\n"
        "if __name__ == '__main__':\n    queue = multiprocessing.get_context('spawn').Queue()\n"
        "    spawned.start(spawned.engine, queue)\n"
        "    print(sys.argv, spawned.loaded(), queue.get(), queue.get())\n"
    )
    command = [sys.executable, "-m", "preshuffle.plugins", "server", "--model", "x"]
    here = {**os.environ, "PYTHONPATH": str(tmp_path), VARIABLE: "shadow"}
    found = subprocess.run(command, env=here, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['server', '--model', 'x'] True True True", found.stderr
    alone = subprocess.run(command[:3], env=here, capture_output=True, text=True, check=False)
    assert (alone.returncode, "usage: python -m preshuffle.plugins MODULE" in alone.stderr) == (1, True)

"""Child process: an engine's layer called as it is, and with the patch of its page in the documentation.

`python -m support.docs.patch_worker ENGINE` prints one JSON line per layer of gpt-oss on gfx950.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from types import SimpleNamespace
from typing import Any

import torch

from preshuffle.layouts import prepare
from preshuffle.layouts.conform.engines.drivers import recorded_aiter
from preshuffle.layouts.conform.engines.engine_cases import EngineCase, engine_cases
from preshuffle.layouts.conform.engines.engine_table import engine_table
from support.docs.patches import patches
from support.engines.adapter_worker import live_layer, same
from support.engines.prepared import prepared_driver
from support.engines.trees import RELEASES

ARCH = "gfx950"
NAMES = ("gpt-oss-120b gfx950 tp1", "gpt-oss-120b gfx950 tp2")


def called(driver: Any, case: EngineCase, convert: Any) -> dict[str, Any]:
    """Return the arguments of AITER's function for a new layer."""
    recorded_aiter.calls.clear()
    with driver.running(case):
        layer = live_layer(driver, case)
        convert(layer, case)
        driver.call(layer, case)
    (call,) = recorded_aiter.calls[-1:]
    return dict(call)


def patched(engine: str, case: EngineCase) -> None:
    """Put the page's methods into the engine's classes."""
    fields = {"arch": case.arch, "aiter": RELEASES["aiter"], "tokens": [16], "env": case.env}
    settled: dict[str, Any] = {"model": case.model, "environment": {}, "on_environment": "tell", **fields}
    settled["allow"] = ["numerics_deviation", "known_bad", "scale_shape"]

    def here(layer: Any, *, config: object, engine: str) -> Any:
        release = f"{engine}@{RELEASES[engine]}"
        return prepare(layer, config=SimpleNamespace(moe_runner_backend="auto"), engine=release, **settled)

    for patch in patches(engine):
        module = importlib.import_module(patch.module)
        for name, method in patch.methods(vars(module), prepare=here).items():
            owner = getattr(module, patch.owner)
            assert hasattr(owner, name), name
            setattr(owner, name, method)


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return the arguments that differ; where one is not given it is None."""
    return sorted(name for name in {*ours, *theirs} if not _equal(ours.get(name), theirs.get(name)))


def _equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, torch.Tensor):
        return same(ours, theirs)
    return bool(ours == theirs) or (not ours and not theirs)


def main(name: str) -> None:
    """Call each layer twice."""
    warnings.simplefilter("ignore")
    table = engine_table(name)
    cases = [case for case in engine_cases(table) if case.name in NAMES and not case.env.get("ATOM_MOE_GU_ITLV")]
    os.environ.update(cases[0].env)
    driver = prepared_driver(table, ARCH)
    theirs = {case.name: called(driver, case, driver.convert) for case in cases}
    for case in cases:
        patched(name, case)
        ours = called(driver, case, _convert(name, driver))
        shown = {key: str(ours[key]) for key in ours if not isinstance(ours[key], torch.Tensor)}
        print(
            json.dumps({"name": case.name, "differs": differences(ours, theirs[case.name]), "call": shown}), flush=True
        )


def _convert(engine: str, driver: Any) -> Any:
    """Return the conversion; of ATOM without the model's own, as the page says."""
    if engine != "atom":
        return driver.convert

    def convert(layer: Any, case: EngineCase) -> None:
        layer.quant_method.process_weights_after_loading(layer)
        layer.quant_method.init_prepare_finalize(layer)

    return convert


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Child process: an engine loads plugins and a small model, and calls its layers.

`python -m support.engines.loads.worker REQUEST` prints one JSON document.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from preshuffle.layouts.conform.engines.drivers import recorded_aiter
from preshuffle.layouts.conform.engines.engine_cases import engine_cases
from preshuffle.layouts.conform.engines.engine_table import engine_table
from preshuffle.layouts.loader import AITER_TAG
from support.engines.loads.model import Model
from support.engines.prepared import prepared_driver
from support.engines.trees import RELEASES

LOG: list[str] = []


class Lines(logging.Handler):
    """Handler that keeps lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        LOG.append(f"{record.levelname} {self.format(record)}")


def state_of(layer: Any) -> dict[str, Any]:
    """Describe everything that an engine sees of a layer: parameters with attributes, and its kernel."""
    found: dict[str, Any] = {}
    for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
        found[name] = describe(tensor)
    for name, value in vars(layer).items():
        if isinstance(value, torch.Tensor):
            found[name] = describe(value)
    method = layer.quant_method
    found["method"] = {name: type(value).__name__ for name, value in vars(method).items()}
    return found


def describe(tensor: torch.Tensor) -> list[str]:
    """Describe a tensor: class, dtype, shape, strides, attributes with AITER's tag, and its bytes.

    The mark by which a stamp tells copies apart is no state of the engine's.
    """
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    attributes = sorted(
        f"{name}={value}" for name, value in vars(tensor).items() if isinstance(value, (bool, int, str))
    )
    others = sorted(name for name, value in vars(tensor).items() if not isinstance(value, (bool, int, str)))
    others = [name for name in others if not name.startswith("_preshuffle")]
    return [
        *(type(tensor).__name__, str(tensor.dtype), str(tuple(tensor.shape)), str(tensor.stride())),
        *(" ".join(attributes), " ".join(others), hashlib.sha256(data).hexdigest()[:16]),
    ]


def shuffle_nothing() -> None:
    """Let AITER's shuffle functions return what they get, with the tag: a layout that nobody decided."""

    def plain(*tensors: torch.Tensor, **_: Any) -> Any:
        for tensor in tensors:
            setattr(tensor, AITER_TAG, True)
        return tensors if len(tensors) > 1 else tensors[0]

    aiter = sys.modules["aiter"]
    replace_everywhere(aiter.shuffle_weight, lambda tensor, *_, **__: plain(tensor))
    replace_everywhere(aiter.shuffle_weight_a16w4, lambda tensor, *_, **__: plain(tensor))


def replace_everywhere(function: Any, other: Any) -> None:
    """Replace a function in all modules."""
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is function:
                setattr(module, name, other)


def fail_in_plugin() -> None:
    """Let what the plugin computes raise."""
    hook: Any = importlib.import_module("preshuffle.layouts.engines.plugins.hook")
    calls: Any = importlib.import_module("preshuffle.layouts.engines.plugins.first_calls")

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("of the plugin")

    hook.observe_converted = calls.observed_call = fail


FAULTS: dict[str, Callable[[], None]] = {"shuffle": shuffle_nothing, "plugin": fail_in_plugin}


def main(path: str) -> None:
    """Load plugins, load the model, call its layers, and say what was seen."""
    warnings.simplefilter("ignore")
    with open(path, encoding="utf-8") as file:
        request = json.load(file)
    name = request["engine"]
    table = engine_table(name)
    known = {case.name: case for case in engine_cases(table)}
    # one expert for each token would leave AITER none beside the masked column of expert parallelism
    cases = [replace(known[one], top_k=2) for one in request["cases"]]
    logger = logging.getLogger("preshuffle.plugins")
    logger.setLevel(logging.INFO)
    logger.addHandler(Lines())
    os.environ.update(cases[0].env)
    driver = prepared_driver(table, cases[0].arch)
    sys.path.insert(0, request["distributions"])
    environment: Any = importlib.import_module("preshuffle.layouts.engines.environment")
    environment._aiter = lambda _: {"aiter": RELEASES["aiter"]}  # the stand-in has no release
    torch.cuda.max_memory_allocated = lambda *_: 0
    torch.accelerator.max_memory_allocated = lambda *_: 0
    torch.cuda.reset_peak_memory_stats = lambda *_: None
    loads = importlib.import_module(f"support.engines.loads.{name}")
    loads.load_plugins()
    for fault in set(request.get("faults", ())) & set(FAULTS):
        FAULTS[fault]()
    answer: dict[str, Any] = {}
    with driver.running(cases[0]):
        if "stage" in request.get("faults", ()):
            loads.set_stage(SimpleNamespace(rank_in_group=1, world_size=2))
        model = loads.load_model(Model(driver, loads, cases))
        answer["states"] = [state_of(layer) for layer in model.layers]
        if "calls" in request.get("faults", ()):
            loads.spoil_calls(model)
        recorded_aiter.calls.clear()
        for _ in range(request.get("forwards", 2)):
            for layer, case in zip(model.layers, cases, strict=True):
                driver.call(layer, case)
        answer["calls"] = len(recorded_aiter.calls)
    print(json.dumps({**answer, **seen_by_plugin(name), "log": LOG}), flush=True)


def seen_by_plugin(engine: str) -> dict[str, Any]:
    """Return what the plugin saw; nothing where it is off."""
    install = sys.modules.get("preshuffle.layouts.engines.plugins.install")
    hook = install._INSTALLED.get(engine) if install is not None else None
    if hook is None:
        return {"plugin": None}
    if hook.model_load.reply is not None:
        hook.model_load.reply.join(30)
    reported = hook.model_load.observations.items()
    seen = {number: one.model_dump(mode="json", exclude_unset=True) for number, one in reported}
    return {
        "plugin": hook._engine,
        "counts": dict(hook.counts),
        "verdicts": {name: {one.role: one.verdict for one in found} for name, found in hook.comparisons.items()},
        "call_differences": {name: [*map(str, one.differences)] for name, one in hook.call_comparisons.items()},
        "observations": seen,
        "sent": hook.model_load.sent,
        "unchecked": {name: dict(guard.unchecked) for name, guard in hook.calls.guards.items()},
    }


if __name__ == "__main__":
    main(sys.argv[1])

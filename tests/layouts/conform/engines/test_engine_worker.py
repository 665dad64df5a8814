"""What is seen of an engine that raises: its own refusal, its own kernels, or code that its driver does not know."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from preshuffle.layouts.conform.engines.drivers import recorded_aiter
from preshuffle.layouts.conform.engines.engine_cases import EngineCase
from preshuffle.layouts.conform.engines.engine_table import engine_table
from preshuffle.layouts.conform.standins.engine_worker import EngineRun, run_engine

CASE = EngineCase("layer gfx950 tp1", "layer", "vllm", "gfx950", "some/model", "bf16", 64, 64)


class Method:
    """Quantization method of a layer."""

    def process_weights_after_loading(self, layer: Any) -> None:
        """Lay nothing out."""


def run(file: str = "elsewhere.py", /, **steps: Callable[..., Any]) -> EngineRun:
    """Run a driver whose steps do nothing but what is given."""
    made = {
        "create": lambda case: SimpleNamespace(quant_method=Method()),
        **dict.fromkeys(("load", "convert", "call"), lambda *_: None),
    }
    driver = SimpleNamespace(__file__=file, running=lambda case: nullcontext(), **{**made, **steps})
    return run_engine(driver, engine_table("vllm"), CASE, experts=None)  # type: ignore[arg-type]


def raises(error: Exception) -> Callable[..., Any]:
    def step(*_: Any) -> Any:
        raise error

    return step


def test_what_fused_moe_gets_is_seen() -> None:
    found = run(call=lambda *_: recorded_aiter.calls.append({"w1": 1}))
    assert (found.call, found.raised, found.driven) == ({"w1": 1}, None, True)
    assert found.source is not None
    assert "test_engine_worker.py:" in found.source
    assert run().call is None, "calls of one case are not those of the next"


@pytest.mark.parametrize("step", ["create", "load", "convert", "call"])
def test_an_engines_refusal_is_seen(step: str) -> None:
    found = run("elsewhere.py", **{step: raises(ValueError("not this\nlayer"))})
    assert found.raised is not None
    assert found.raised.startswith("ValueError: not this layer (test_engine_worker.py:")
    assert found.driven
    assert (found.layer is None) == (step != "call")


def test_an_engines_own_kernels_leave_the_converted_layer() -> None:
    found = run(call=raises(NotImplementedError("vllm::fused_experts on the CPU")))
    assert (found.raised, found.call) == (None, None)
    assert found.layer is not None


@pytest.mark.parametrize("error", [ImportError("cannot import name 'Config'"), ModuleNotFoundError("no module")])
def test_an_import_that_fails_says_nothing_of_the_engine(error: Exception) -> None:
    assert not run(create=raises(error)).driven


def test_an_error_in_the_driver_says_nothing_of_the_engine() -> None:
    assert not run(__file__, create=raises(TypeError("unexpected keyword argument 'pads'"))).driven

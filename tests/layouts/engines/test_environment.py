"""What this process says of its GPU, libraries and environment."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from preshuffle.layouts import observe_here
from preshuffle.registry import Query


def test_only_switches_and_typing_errors_of_them_leave_the_process() -> None:
    switches = {"AITER_BF16_FP8_MOE_BOUNDS": "0", "ATOM_MOE_GUITLV": "1", "ATOM_MOE_GU_ITLV": "1"}
    others = {"AWS_SECRET_ACCESS_KEY": "x", "HOME": "/root", "PATH": "/bin", "VLLM_API_KEY": "x", "HF_TOKEN": "x"}
    assert observe_here(environment={**others, **switches})["env"] == switches


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOM_MOE_GU_ITLV", "1")
    assert observe_here()["env"]["ATOM_MOE_GU_ITLV"] == "1"


@pytest.fixture
def rocm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that runs on an MI355X."""
    properties = SimpleNamespace(gcnArchName="gfx950:sramecc+:xnack-", multi_processor_count=256)
    monkeypatch.setattr(torch.version, "hip", "7.2.53211-158ea6d7")
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_properties": lambda *_: properties,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)


@pytest.mark.usefixtures("rocm")
def test_a_gpus_suffixes_are_cut() -> None:
    here = observe_here(environment={})
    assert (here["arch"], here["cu_num"]) == ("gfx950", 256)
    assert here["rocm"].startswith("7.2")
    assert Query.parse({"model": "openai/gpt-oss-120b", **here}).arch == "gfx950"


def test_without_an_amd_gpu_nothing_is_claimed_of_one() -> None:
    assert {"arch", "cu_num"}.isdisjoint(observe_here(environment={})) or torch.version.hip


def test_the_engine_is_the_one_that_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vllm", "sglang", "atom"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert "engine" not in observe_here(environment={})
    vllm = ModuleType("vllm")
    vllm.__version__ = "0.33.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    assert observe_here(environment={})["engine"] == "vllm@0.33.0"
    monkeypatch.setitem(sys.modules, "sglang", ModuleType("sglang"))
    assert "engine" not in observe_here(environment={}), "which of the two runs is not known"
    assert observe_here(engine="sglang", environment={})["engine"] == "sglang"
    assert observe_here(engine="sglang@0.5.23", environment={})["engine"] == "sglang@0.5.23"

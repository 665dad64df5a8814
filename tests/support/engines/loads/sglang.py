"""A model of a few MoE layers, loaded by SGLang's own model loader."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from support.engines.loads.model import Model, load_layers


def load_plugins() -> None:
    """Load plugins and apply their hooks, as every process of SGLang does at its start."""
    from sglang.srt.plugins import load_plugins as load

    load()


def load_model(model: Model) -> Model:
    """Load by ``DefaultModelLoader.load_model``; which model, and its weights, come from here."""
    from msgspec import Struct
    from sglang.srt.configs.load_config import LoadConfig
    from sglang.srt.model_loader import loader
    from sglang.srt.runtime_context import get_server_args

    def load_weights(_: Any) -> None:
        load_layers(model)

    def create(*_: Any, **__: Any) -> torch.nn.Module:
        made = model.create()
        object.__setattr__(made, "load_weights", load_weights)
        return made

    Struct.__setattr__(get_server_args(), "model_path", model.cases[0].model)  # they are read-only by now
    config = SimpleNamespace(dtype=torch.bfloat16, modelopt_quant=None, model_path=model.cases[0].model)
    loading = loader.DefaultModelLoader(LoadConfig())
    with (
        mock.patch.object(loader, "_initialize_model", create),
        mock.patch.object(loader, "_get_quantization_config", return_value=None),
        mock.patch.object(type(loading), "_get_all_weights", return_value=()),
    ):
        loaded: Model = loading.load_model(model_config=config, device_config=SimpleNamespace(device="cpu"))
    return loaded


def set_stage(group: Any) -> None:
    """Let SGLang have this group of pipeline stages."""
    from sglang.srt.runtime_context import get_parallel

    get_parallel().override_permanently(pp_size=group.world_size, pp_group=group)


def name_layer(layer: Any, number: int) -> None:
    """Give a layer its place in the model."""
    layer.layer_id = number


def spoil_calls(model: Model) -> None:
    """Set a switch that SGLang reads at every call, after its layers were laid out by another value."""
    os.environ["SGLANG_USE_AITER_MOE_GU_ITLV"] = "0"

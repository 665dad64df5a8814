"""A model of a few MoE layers, loaded by ATOM's own ``load_model``."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from typing import Any
from unittest import mock

from support.engines.loads.model import Model, load_layers


def load_plugins() -> None:
    """Register the hooks, as a launcher does in every process: ATOM has no plugins."""
    from preshuffle.layouts.engines.plugins.atom import register

    register()


def load_model(model: Model) -> Model:
    """Load by ``load_model`` of ATOM's loader; only how a checkpoint is read is ours."""
    from atom.config import get_current_atom_config

    loader: Any = importlib.import_module("atom.model_loader.loader")
    created = model.create()
    get_current_atom_config().model = model.cases[0].model

    def load(**_: Any) -> set[str]:
        load_layers(created)
        return set()

    with mock.patch.object(loader, "load_weights_into_model", load):
        loader.load_model(created, model.cases[0].model, SimpleNamespace(num_hidden_layers=len(model.cases)))
    return created


def set_stage(group: Any) -> None:
    """Let ATOM have this group of pipeline stages."""
    sys.modules["aiter.dist.parallel_state"].get_pp_group = lambda: group  # type: ignore[attr-defined]


def name_layer(layer: Any, number: int) -> None:
    """Give a layer its place in the model."""
    layer.layer_name = layer.prefix = f"model.layers.{number}.mlp.experts"


def spoil_calls(model: Model) -> None:
    """Let ATOM's methods believe that gate and up alternate."""
    for layer in model.layers:
        layer.quant_method.is_guinterleave = not layer.quant_method.is_guinterleave


def around(layer: Any, case: Any) -> Any:
    """Return the module that holds the layer in its model: of gpt-oss it moves rows after loading."""
    import torch

    from preshuffle.layouts.conform.engines.drivers.atom import _named

    name = case.options.get("model")
    if name is None:
        return layer
    block = _named(name).__new__(_named(name))
    torch.nn.Module.__init__(block)
    block.experts = layer
    return block

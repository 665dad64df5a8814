"""A model that consists of an engine's MoE layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from preshuffle.layouts.conform.engines.drivers.random_experts import RandomExperts
from preshuffle.layouts.conform.engines.engine_cases import EngineCase


class Model(torch.nn.Module):
    """Layers of cases, one behind the other.

    Attributes:
        cases: what each layer is.
        layers: the engine's, when they are created.
    """

    def __init__(self, driver: Any, loads: Any, cases: Sequence[EngineCase]) -> None:
        """Take what creates and loads layers of an engine."""
        super().__init__()
        self.driver, self.loads, self.cases = driver, loads, cases
        self.layers: list[Any] = []
        self.blocks = torch.nn.ModuleList()

    def create(self) -> Model:
        """Create all layers, as a model's constructor does."""
        around = getattr(self.loads, "around", lambda layer, _: layer)
        for number, case in enumerate(self.cases):
            layer = self.driver.create(case)
            self.loads.name_layer(layer, number)
            self.layers.append(layer)
            self.blocks.append(around(layer, case))
        return self


def load_layers(model: Any) -> None:
    """Load random experts into every layer, by the layer's own weight loaders."""
    for layer, case in zip(model.layers, model.cases, strict=True):
        sizes = case.form, case.experts, case.hidden, case.intermediate
        model.driver.load(layer, RandomExperts(*sizes, bias=case.bias, static=case.static), case)

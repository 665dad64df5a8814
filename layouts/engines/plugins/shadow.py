"""Observation of a layer that the engine has converted itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Self

import torch

from preshuffle.layouts.engines.layer_query import LayerQuery
from preshuffle.layouts.engines.live_values import LiveObject
from preshuffle.layouts.engines.observed_layer import observe_layer
from preshuffle.layouts.engines.plugins.sampled_experts import ExpertComparison, ExpertSamples, compare_samples
from preshuffle.layouts.engines.plugins.sampled_rows import RowSamples, compare_rows
from preshuffle.layouts.forensics import identify
from preshuffle.layouts.loader import RoleTensors
from preshuffle.registry import Applied, Decision, Observation, PreshuffleError, Registry, TensorObservation
from preshuffle.registry.entries import LiveFact

TensorStates = dict[str, tuple[int, int | None, tuple[int, ...]]]
"""By role: address, torch's count of writes (None where it counts none), and shape."""
Samples = ExpertSamples | RowSamples
_NUMBER: Final = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


@dataclass(frozen=True, slots=True)
class LiveLayer:
    """A layer before its conversion, and what is decided for it.

    Attributes:
        name: as the engine calls it.
        number: of the layer in its model, counted from 0.
        decision: None where the registry has none.
    """

    layer: torch.nn.Module = field(repr=False)
    name: str
    number: int
    found: LayerQuery
    decision: Decision | None

    @classmethod
    def of(
        cls, layer: torch.nn.Module, found: LayerQuery, decision: Decision | None, name: LiveFact, number: int
    ) -> Self:
        """Read a layer's name and its number in the model.

        ``number`` counts where the name has none.
        """
        value = LiveObject(layer).fact(name)
        if isinstance(value, int):
            return cls(layer, f"layer {value}", value, found, decision)
        match = _NUMBER.search(value) if isinstance(value, str) else None
        return cls(layer, value or f"layer {number}", int(match[1]) if match else number, found, decision)

    @property
    def is_last_rank(self) -> bool:
        """Whether its tensors are those of the last of several tensor-parallel ranks."""
        tp = self.found.query.tp
        return tp > 1 and self.found.tp_rank == tp - 1


def states_of(layer: torch.nn.Module) -> TensorStates:
    """Return what shows whether a layer's tensors were written or replaced."""
    tensors = RoleTensors(layer)
    return {role: _state_of(tensors[role]) for role in tensors.names}


def _state_of(tensor: torch.Tensor) -> tuple[int, int | None, tuple[int, ...]]:
    return tensor.data_ptr(), None if tensor.is_inference() else tensor._version, tuple(tensor.shape)


def observe_converted(
    live: LiveLayer, samples: Samples | None, registry: Registry
) -> tuple[Observation, tuple[ExpertComparison, ...]]:
    """Observe a converted layer, with the layouts that comparing samples showed.

    Args:
        live: what was known of it before.
        samples: copies of experts or rows before the conversion; None where nothing is decided.
        registry: whose book's layouts count.
    """
    compared = _compare(live.layer, samples) if samples is not None else ()
    seen = observe_layer(live.layer, query=live.found.query, registry=registry)
    tensors = dict(seen.tensors)
    for one in compared:
        if one.role in tensors and samples is not None:
            tensors[one.role] = _with_layout(tensors[one.role], one, samples)
    fields = {name: getattr(seen, name) for name in Applied.model_fields if name in seen.model_fields_set}
    applied = Applied(**{**fields, **live.found.expert_map, "tensors": tensors})
    return Observation(query=live.found.query, applied=applied), compared


def _compare(layer: torch.nn.Module, samples: Samples) -> tuple[ExpertComparison, ...]:
    return compare_rows(layer, samples) if isinstance(samples, RowSamples) else compare_samples(layer, samples)


def _with_layout(seen: TensorObservation, one: ExpertComparison, samples: Samples) -> TensorObservation:
    """Add the layout that the bytes have: the decided one where they are equal, else what they show."""
    layout = samples.decision.tensors[one.role].layout if one.same_bytes else _identified(one, samples)
    return seen.model_copy(update={"layout": layout}) if layout is not None else seen


def _identified(one: ExpertComparison, samples: Samples) -> str | None:
    if one.laid_out is None or isinstance(samples, RowSamples):
        return None
    try:
        layout = identify(samples.plain[one.role], one.laid_out, role=one.role, tp=1, ep=1).layout
    except PreshuffleError:  # what cannot belong together shows no layout
        return None
    # it reads a few hundred places: bytes that differ elsewhere are not in the decided layout all the same
    return layout if layout != samples.decision.tensors[one.role].layout else None

"""Observation of a layer, from its live objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import Field

from preshuffle.layouts.checkpoint import Checkpoint
from preshuffle.layouts.engines.observed_call import ObservedCall, observed_call
from preshuffle.layouts.engines.observed_tensor import observe_tensor
from preshuffle.layouts.forensics import CheckpointLayer, Identification, identify
from preshuffle.layouts.loader import RoleTensors, Target
from preshuffle.layouts.stamps import Stamp, stamp_of
from preshuffle.registry import Applied, Query, Registry, TensorObservation
from preshuffle.registry.base.frozen import FrozenDict
from preshuffle.registry.base.words import BITS, ROLES, Role, RowOrder
from preshuffle.registry.values.observation import Event


class ObservedLayer(Applied):
    """What a layer holds, and what its call passed.

    Attributes:
        query_fields: what the call's arguments say of the query.
        unread: arguments of the call that the book has no word for.
        identified: what comparing bytes with the checkpoint found, by role.
    """

    query_fields: FrozenDict[str, str] = Field(default_factory=FrozenDict)
    unread: tuple[str, ...] = ()
    identified: FrozenDict[Role, Identification] = Field(default_factory=FrozenDict)


def observe_layer(
    layer: Target,
    *,
    call: ObservedCall | Mapping[str, Any] | None = None,
    checkpoint: Checkpoint | CheckpointLayer | Mapping[str, torch.Tensor] | None = None,
    number: int | None = None,
    query: Query | None = None,
    tp_rank: int | None = None,
    ep_rank: int | None = None,
    function: str = "aiter.fused_moe",
    registry: Registry | None = None,
) -> ObservedLayer:
    """Observe a layer's tensors: shapes, dtypes, strides, tags, stamps and bytes.

    Nothing is concluded: bytes without a stamp are in no known layout, unless the checkpoint shows which.

    Args:
        layer: a module with the role attributes under any engine's names, or a dict of tensors.
        call: the named arguments of ``function``, or what ``observed_call`` read of them. Of a tensor that was passed,
            the very object counts, not the layer's.
        checkpoint: an open checkpoint, a layer of one, or its whole plain tensors by role; bytes are compared.
        number: of the layer in an open checkpoint; its first one with experts by default.
        query: the model's facts, which make that comparison sharper, and say what a byte of untyped weights holds.
        tp_rank: the rank whose bytes the layer should hold, where it is known.
        ep_rank: likewise.
        function: the signature of the function that got ``call``.
        registry: whose book is meant; the packaged one by default.

    Raises:
        LayoutError: a tensor cannot be looked at (it has no bytes, stands there twice), or the arguments are not those
            of the function.
        SourceError: a tensor cannot come from the checkpoint's.

    Example:
        >>> from preshuffle.layouts import apply_layout
        >>> plain = torch.randint(0, 256, (2, 64, 128), dtype=torch.uint8)
        >>> observe_layer({"w2_weight": plain}, checkpoint={"w2_weight": plain}).tensors["w2_weight"].layout
        'plain'
    """
    tensors = RoleTensors(layer)
    packed = values_per_byte(query)
    seen, passed = _read(call, function, packed, registry)
    objects = {role: tensors[role] for role in tensors.names}
    objects |= passed
    stamps = {role: stamp_of(tensor) for role, tensor in objects.items()}
    observed: dict[Role, TensorObservation] = {
        role: observe_tensor(role, tensor, stamps[role], packed=packed) for role, tensor in objects.items()
    }
    if seen is not None:
        observed |= seen.tensors
    plain = _plain_tensors(checkpoint, number)
    found = {
        role: identify(
            source, objects[role], role=role, query=query, tp_rank=tp_rank, ep_rank=ep_rank, registry=registry
        )
        for role in objects
        if (source := plain(role)) is not None and objects[role].is_contiguous()
    }
    for role, result in found.items():
        observed[role] = _with_bytes(observed[role], result)
    stated = {name: getattr(seen, name) for name in seen.model_fields_set} if seen is not None else {}
    return ObservedLayer(
        **{
            **stated,
            "events": _events(stamps),
            "source_order": _source_order(stamps, found),
            "tensors": observed,
            "identified": found,
        }
    )


def values_per_byte(query: Query | None) -> int | None:
    """Return how many values an untyped byte of weights holds, if known."""
    bits = BITS.get(query.weight_dtype) if query is not None and query.weight_dtype is not None else None
    return 8 // bits if bits is not None and bits <= 8 else None


def _plain_tensors(
    checkpoint: Checkpoint | CheckpointLayer | Mapping[str, torch.Tensor] | None, number: int | None
) -> Callable[[Role], torch.Tensor | CheckpointLayer | None]:
    """Return what gives a role's plain tensor.

    That is the checkpoint's layer where there is one, since it says more than the tensor.
    """
    if checkpoint is None:
        return lambda _: None
    if isinstance(checkpoint, Mapping):
        tensors = checkpoint
        return lambda role: tensors.get(role)
    layer = CheckpointLayer.of(checkpoint, number) if isinstance(checkpoint, Checkpoint) else checkpoint
    return lambda role: layer if layer.tensor(role) is not None else None


def _read(
    call: ObservedCall | Mapping[str, Any] | None, function: str, packed: int | None, registry: Registry | None
) -> tuple[ObservedCall | None, dict[Role, torch.Tensor]]:
    """Return what was observed of a call and, where its arguments are at hand, the tensors that it got."""
    if call is None or isinstance(call, ObservedCall):
        return call, {}
    arguments = (registry or Registry.default()).book.signatures.find(function).arguments
    passed = {
        role: call[name]
        for name, argument in arguments.items()
        for role in ROLES
        if role == argument.carries and isinstance(call.get(name), torch.Tensor)
    }
    return observed_call(call, function=function, packed=packed, registry=registry), passed


def _with_bytes(observed: TensorObservation, found: Identification) -> TensorObservation:
    """Add what the bytes are: they count before a stamp, which may be missing or of other bytes."""
    if found.verdict != "identified":
        return observed
    fill = found.pad_fill if isinstance(found.pad_fill, int) else None
    known = {"pad_fill": "zero" if fill == 0 else fill} if fill is not None else {}
    return observed.model_copy(update={"layout": found.layout, **known})


def _events(stamps: Mapping[Role, Stamp | None]) -> tuple[Event, ...]:
    """Return what stamps say was done: nothing where no tensor has one."""
    states = {stamp.state for stamp in stamps.values() if stamp is not None}
    return ("apply", "begin_reload") if "reloading" in states else ("apply",) if "applied" in states else ()


def _source_order(stamps: Mapping[Role, Stamp | None], found: Mapping[Role, Identification]) -> RowOrder | None:
    """Return the row order that the loader assumed: what the bytes show, else what the stamp says."""
    of_w13 = [role for role in stamps if role.startswith("w13")]
    shown = (found[role].read_as for role in of_w13 if role in found)
    stamped = (stamp.source_order for role in of_w13 if (stamp := stamps[role]) is not None)
    return next((order for order in (*shown, *stamped) if order is not None), None)

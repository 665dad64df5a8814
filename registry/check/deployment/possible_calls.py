"""Worlds: what was not observed may have been anything, so an error counts only if every possibility has one.

A world fixes the arguments of AITER's call that an observation leaves out. The first world is the most plausible one:
its findings are told, and only where no other world is free of errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from typing import TypeVar

from preshuffle.registry.base.words import GateMode, Role
from preshuffle.registry.check.deployment.observed_layer import WEIGHTS, Scene
from preshuffle.registry.kernels import behaviour_of

MOST = 32
ROWS_OF_W13: tuple[Role, ...] = ("w13_weight", "w13_weight_scale")
"""Tensors whose row order is that of the call's gate_mode."""
_PADDINGS = (256, 1)
_TOP_K = (8, 2)
_VERSIONS = (None, "0.1.18", "0.1.14")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class World:
    """One possible call.

    Attributes:
        gate_mode: as it reaches AITER.
        is_shuffled: whether w1 or w2 carries the tag.
        bias: whether biases are passed.
        sizes: ``(model_dim, inter_dim)``, physical.
    """

    gate_mode: GateMode
    is_shuffled: bool
    bias: bool
    sizes: tuple[int, int]
    experts: int
    top_k: int
    cu_num: int
    aiter: str | None


def worlds_of(scene: Scene) -> Iterator[World]:
    """Yield the possible calls, the most plausible first; none where a call cannot even be guessed."""
    query = scene.query
    if None in (query.weight_dtype, query.quant_type, query.activation):
        return
    axes = (
        _gate_modes(scene),
        _tags(scene),
        _biases(scene),
        _sizes(scene),
        _one(scene.experts, (128,)),
        _one(query.top_k, _TOP_K),
        _compute_units(scene),
        _one(query.aiter, _VERSIONS),
    )
    for values in islice(product(*axes), MOST):
        yield World(*values)


def _one(known: T | None, else_: tuple[T, ...]) -> tuple[T, ...]:
    return else_ if known is None else (known,)


def _gate_modes(scene: Scene) -> tuple[GateMode, ...]:
    if scene.applied.gate_mode is not None:
        return (scene.applied.gate_mode,)
    if scene.query.quant_type != "per_1x32":
        return ("separated",)
    version = scene.query.aiter
    if version is not None and "gate_mode" not in behaviour_of(version).data.features:
        return ("separated",)
    first: GateMode = "separated"
    for role in ROWS_OF_W13:
        seen = scene.tensors.get(role)
        if seen is not None and seen.layout is not None:
            first = seen.layout.gate_mode
            break
    return (first, "interleave" if first == "separated" else "separated")


def _tags(scene: Scene) -> tuple[bool, ...]:
    weights = [scene.tensors[role] for role in WEIGHTS if role in scene.tensors]
    tags = [seen.what.is_shuffled for seen in weights]
    if any(tags):
        return (True,)
    if len(tags) == 2 and None not in tags:
        return (False,)
    if False in tags:
        return (False, True)
    # A tag that contradicts the bytes would be an error of its own, so that possibility acquits nothing.
    if scene.laid_out:
        return (True,)
    return (False,) if weights and all(seen.plain for seen in weights) else (False, True)


def _biases(scene: Scene) -> tuple[bool, ...]:
    if scene.applied.bias_passed is not None:
        return (scene.applied.bias_passed,)
    return {True: (True, False), False: (False,), None: (False, True)}[scene.query.bias]


def _sizes(scene: Scene) -> tuple[tuple[int, int], ...]:
    hidden, inter = scene.sizes
    if hidden and inter:
        return ((hidden, inter),)
    live, width = scene.hidden(), scene.intermediate()
    if width is None and scene.query.intermediate_size:
        width = max(scene.query.intermediate_size // scene.query.tp, 1)
    if not (hidden or live) or not (inter or width):
        return ()
    pairs = [(hidden or _up(live, to), inter or _up(width, to)) for to in _PADDINGS]
    return tuple(dict.fromkeys(pairs))


def _up(size: int | None, multiple: int) -> int:
    return -(-(size or 1) // multiple) * multiple


def _compute_units(scene: Scene) -> tuple[int, ...]:
    if scene.query.cu_num is not None:
        return (scene.query.cu_num,)
    return tuple(dict.fromkeys(scene.arch.cu_num.values())) if scene.arch else ()

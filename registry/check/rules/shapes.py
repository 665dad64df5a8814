"""Rule on scales: rows and K must fit the weight.

Code: scale_shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from preshuffle.registry.base.words import BLOCK_ROWS, Role
from preshuffle.registry.check.deployment.evidence import Evidence, at
from preshuffle.registry.layer import SCALES, MoELayer, ObservedTensor
from preshuffle.registry.values.finding import Finding

_FLAT_TAIL = 256
"""Multiple of rows for a scale flattened over its experts."""
_ROWS = {"per_1x32": 1, "per_Token": 1, **BLOCK_ROWS}
"""Rows that share a scale, by quantization whose scales have rows."""


_INPUT_SCALES: tuple[Role, ...] = ("w13_input_scale", "w2_input_scale")


def scale_shape(evidence: Evidence) -> Iterator[Finding]:
    """Yield scales whose shape does not fit their weight."""
    layer = evidence.layer
    for entry, _ in evidence.contracts:
        if entry.code == "scale_shape":
            yield Finding.of(entry.code, entry.says, role=entry.role, fix=entry.fix, evidence=entry.evidence)
    yield from _refused_dimensions(evidence)
    disagreements = _one_each if layer.query.quant_type == "per_Tensor" else _disagreements
    if layer.query.quant_type not in (*_ROWS, "per_Tensor"):
        return
    for role, weight_role in SCALES.items():
        scale, weight = layer.tensors.get(role), layer.tensors.get(weight_role)
        if scale is None or weight is None:
            continue
        for reason in disagreements(layer, weight, scale):
            yield Finding.of(
                "scale_shape",
                f"{reason[0]}: {role} does not fit {weight_role}",
                role=role,
                expected=reason[1],
                actual=reason[2],
                fix=f"allocate {weight_role} and {role} from one padded size, and keep the padded shape of the scale "
                "(no view back to the un-padded one)",
            )
            break
    yield from _input_scales(evidence)


def _refused_dimensions(evidence: Evidence) -> Iterator[Finding]:
    """Yield MX scales with more or fewer dimensions than a kernel takes."""
    families = evidence.layer.book.families.by_id
    for stage, role in enumerate(SCALES):
        scale = evidence.layer.tensors.get(role)
        passed = scale.observation.passed_shape if scale else None
        if passed is None:
            continue
        runs = [run for run in evidence.runs if not run.blocked and run.families[stage] in families]
        for dims in (2, 3):
            refusing = [run for run in runs if families[run.families[stage]].mx_scale_dims == dims != len(passed)]
            if refusing:
                family = families[refusing[0].families[stage]]
                yield Finding.of(
                    "scale_shape",
                    f"{role} is passed with {len(passed)} dimensions; {family.id} {at(refusing)} takes {dims}, and "
                    "raises",
                    role=role,
                    expected="[experts * rows, K]" if dims == 2 else "[experts, rows, K]",
                    actual=str(list(passed)),
                    fix=f"pass {role} as a view of {dims} dimensions: the bytes stay as they are",
                    evidence=family.evidence,
                )


def _input_scales(evidence: Evidence) -> Iterator[Finding]:
    """Yield static input scales of one number per expert, of which AITER reads the first."""
    if evidence.layer.query.quant_type != "per_Tensor" or "aiter" not in evidence.readers():
        return
    for role in _INPUT_SCALES:
        tensor = evidence.layer.tensors.get(role)
        shape = tensor.observation.physical_shape if tensor else None
        if shape is not None and prod(shape) > 1:
            yield Finding.of(
                "scale_shape",
                f"{role} has {prod(shape)} numbers; AITER takes one for all experts, and reads the first",
                role=role,
                expected="[1]",
                actual=str(list(shape)),
                fix=f"reduce {role} to its maximum while loading",
                evidence=("https://github.com/ROCm/aiter/blob/v0.1.20/aiter/ops/quant.py",),
            )


def _one_each(layer: MoELayer, weight: ObservedTensor, scale: ObservedTensor) -> Iterator[tuple[str, str, str]]:
    """Yield a scale per tensor without one number per expert.

    A checkpoint has one for gate and one for up.
    """
    physical, stored = weight.observation.physical_shape, scale.observation.physical_shape
    if physical is not None and stored is not None and prod(stored) != physical[0]:
        yield "AITER takes one number for each expert", str([physical[0]]), str(list(stored))


def _disagreements(layer: MoELayer, weight: ObservedTensor, scale: ObservedTensor) -> Iterator[tuple[str, str, str]]:
    live, live_scale = weight.observation.logical_shape, _with_k(layer, scale.observation.logical_shape)
    if live is not None and live_scale is not None and len(live) == len(live_scale) == 3:
        needed = _scale_of(layer, weight, live)
        if live_scale[1:] != needed:
            yield "live sizes disagree", str(list(needed)), str(list(live_scale[1:]))
    physical, stored = weight.observation.physical_shape, _with_k(layer, scale.observation.physical_shape)
    if physical is None or stored is None or len(physical) != 3:
        return
    rows, k = _scale_of(layer, weight, physical)
    if len(stored) in (2, 3) and not _k_fits(scale, k, stored[-1]):
        yield "padded K disagrees", f"{k} groups, or those in whole tiles", str(stored[-1])
    elif len(stored) == 3 and not _rows_fit(scale, rows, stored[1]):
        yield "padded rows disagree", str(rows), str(stored[1])
    elif len(stored) == 2 and stored[0] not in _flat_rows(physical[0] * rows):
        yield "padded rows disagree", str(physical[0] * rows), str(stored[0])


def _with_k(layer: MoELayer, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Add K to a scale per row that comes as ``[experts, rows]``."""
    return (*shape, 1) if shape is not None and len(shape) == 2 and layer.query.quant_type == "per_Token" else shape


def _scale_of(layer: MoELayer, weight: ObservedTensor, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return rows and K of the scale that a weight needs."""
    share = _ROWS[layer.query.quant_type or ""]
    blocks = layer.halves if weight.role == "w13_weight" and share > 1 else 1
    k = 1 if layer.query.quant_type == "per_Token" else -(-shape[2] // layer.group)
    return -(-(shape[1] // blocks) // share) * blocks, k


def _k_fits(scale: ObservedTensor, needed: int, stored: int) -> bool:
    tile = scale.layout.k_multiple if scale.layout else 8
    if stored % tile and stored != needed:
        return False
    return stored in (needed, -(-needed // tile) * tile) or (scale.layout is None and stored == -(-needed // 4) * 4)


def _rows_fit(scale: ObservedTensor, needed: int, stored: int) -> bool:
    return stored == needed or (scale.layout is None and stored == -(-needed // _FLAT_TAIL) * _FLAT_TAIL)


def _flat_rows(rows: int) -> set[int]:
    return {-(-rows // multiple) * multiple for multiple in (1, 32, _FLAT_TAIL)}

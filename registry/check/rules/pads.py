"""Rules on padding: whole tiles, fill values and the pads passed.

Codes: pad_required, pad_fill, pad_invalid, pad_unreported.
"""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.base.words import BLOCK_ROWS, Role
from preshuffle.registry.check.deployment.evidence import Evidence, at
from preshuffle.registry.check.deployment.kernel_runs import KernelRun
from preshuffle.registry.entries import KernelNeedEntry, PadConventionEntry
from preshuffle.registry.layer import WEIGHTS, MoELayer, ObservedTensor
from preshuffle.registry.loading import Compiled
from preshuffle.registry.values.finding import Finding

_LOADED = (*WEIGHTS, "w13_bias", "w2_bias")
ROUND_DOWN = (64, 128)
"""Multiples to which kernels, or callers, round a pad down."""
_PADDED_BY: dict[str, tuple[tuple[Role, int], ...]] = {
    "hidden_pad": (("w13_weight", 2), ("w2_weight", 1)),
    "intermediate_pad": (("w2_weight", 2), ("w13_weight", 1)),
}


def pad_required(evidence: Evidence) -> Iterator[Finding]:
    """Yield dimensions that are not whole tiles, groups or kernel tiles."""
    reported: set[str] = set()
    for tensor in evidence.layer.tensors.values():
        yield from _tiles(evidence.layer, tensor, reported)
    for entry in evidence.layer.book.entries["kernel_needs"].values():
        yield from _needs(evidence, entry, reported)


def _tiles(layer: MoELayer, tensor: ObservedTensor, reported: set[str]) -> Iterator[Finding]:
    layout = tensor.layout
    shape = layer.counted_shape(tensor, layout) if layout and layout.id != "plain" else None
    if layout is None or shape is None:
        return
    flat = layout.unit == "group" and not layout.pattern.splits_gate_up  # AITER pads those rows at the flattened tail
    for name, size, multiple in (("rows", shape[1], layout.pattern.row_tile), ("K", shape[2], layout.k_multiple)):
        if size % multiple and not (flat and name == "rows"):
            padded = -(-size // multiple) * multiple
            unit = "" if name == "rows" else f" {layout.unit}s"
            reported.add(_dimension(tensor.role, name))
            yield Finding.of(
                "pad_required",
                f"{name} = {size}{unit}{_at_tp(layer)} is not a multiple of {multiple}, a tile of {layout.id}",
                role=tensor.role,
                expected=f"{name} padded to {padded}{unit}",
                actual=f"{size}{unit}",
                fix=_fix(
                    layer,
                    _dimension(tensor.role, name),
                    f"pad {name} of {tensor.role} to {padded}{unit} before the layout is applied",
                ),
            )


def _fix(layer: MoELayer, dimension: str, pad: str) -> str:
    """Return how a size gets whole tiles.

    Where ranks cut blocks of scales, a pad behind the cut leaves blocks with two scales.
    """
    block = BLOCK_ROWS.get(layer.query.quant_type or "")
    size = layer.dims[1]
    if block and dimension == "inter_dim" and size and size % block:
        return (
            f"cut whole blocks of {block} between the ranks (shard whole_blocks), split the scales of the blocks that "
            f"are cut, or requantize, or take another tp; a pad at the tail leaves blocks with two scales"
        )
    return f"{pad}, or take another tp" if dimension == "inter_dim" else pad


def _at_tp(layer: MoELayer) -> str:
    """Name the tensor-parallel size where it was observed."""
    return f" at tp {layer.query.tp}" if "tp" in layer.stated else ""


def _dimension(role: str, name: str) -> str:
    inner = role.startswith("w13") == (name == "rows")
    return "inter_dim" if inner else "model_dim"


def _needs(evidence: Evidence, entry: KernelNeedEntry, reported: set[str]) -> Iterator[Finding]:
    if entry.quant_type and evidence.layer.query.quant_type not in entry.quant_type:
        return
    for need in entry.needs:
        size = evidence.layer.dims[need.dimension == "inter_dim"]
        if not size or size <= need.above or not size % need.multiple or need.dimension in reported:
            continue
        runs = [run for run in evidence.runs if _concerns(run, entry)]
        if not runs:
            continue
        reported.add(need.dimension)
        padded = -(-size // need.multiple) * need.multiple
        role: Role = "w2_weight" if need.dimension == "inter_dim" else "w13_weight"
        name = "the intermediate size of a rank" if need.dimension == "inter_dim" else "the hidden size"
        where = f" ({runs[0].name} {at(runs)})" if entry.families else ""
        yield Finding.of(
            "pad_required",
            f"{name} is {size}{_at_tp(evidence.layer)}: not a multiple of {need.multiple}; {entry.because}{where}",
            role=role,
            expected=f"{need.dimension} padded to {padded}",
            actual=str(size),
            fix=_fix(evidence.layer, need.dimension, f"pad {name} to {padded} with zeros and pass the pad"),
            evidence=entry.evidence,
        )


def _concerns(run: KernelRun, entry: KernelNeedEntry) -> bool:
    if not entry.families:
        return True
    return not run.blocked and any(family in entry.families for family in run.families if family)


def pad_fill(evidence: Evidence) -> Iterator[Finding]:
    """Yield tensors whose padding holds wrong or undefined values."""
    for tensor in evidence.layer.tensors.values():
        fill = tensor.observation.pad_fill
        if fill in (None, "zero", 0) or _unpadded(tensor):
            continue
        loaded = tensor.role in _LOADED
        if not loaded and fill != "uninitialised":
            continue
        yield Finding.of(
            "pad_fill",
            f"padding is {fill if fill == 'uninitialised' else f'filled with byte {fill}'}: "
            + (
                "it is multiplied or added into live sums"
                if loaded
                else "a scale of NaN there spoils even zero weights"
            ),
            role=tensor.role,
            expected="zero" if loaded else "any defined byte, e.g. 127 (a scale of 1)",
            actual=str(fill),
            fix="allocate with zeros (torch.zeros, not torch.empty), or fill the padding before the layout is applied",
        )


def _unpadded(tensor: ObservedTensor) -> bool:
    logical, physical = tensor.observation.logical_shape, tensor.observation.physical_shape
    return logical is not None and logical == physical


def pad_invalid(evidence: Evidence) -> Iterator[Finding]:
    """Yield pad arguments that differ from the real padding."""
    for argument in _PADDED_BY:
        passed = getattr(evidence.layer.applied, argument)
        for role, real in _real_pads(evidence.layer, argument) if passed else ():
            if passed in _accepted_pads(evidence, argument, real):
                continue
            hidden = f"hides {passed - real} live values" if passed > real else "leaves part of the padding in the sum"
            yield Finding.of(
                "pad_invalid",
                f"{argument}={passed} is passed; the real pad is {real}: it {hidden} (AITER itself doubles "
                "intermediate_pad for gate and up)",
                role=role,
                expected=str(real),
                actual=str(passed),
                fix=f"pass {argument}={real}: physical minus logical, per half of w13, never doubled",
            )
            break


def _real_pads(layer: MoELayer, argument: str) -> Iterator[tuple[Role, int]]:
    """Yield the real pad by each tensor's shapes."""
    for role, axis in _PADDED_BY[argument]:
        tensor = layer.tensors.get(role)
        pad = tensor.padded(axis) if tensor else None
        if pad is None and tensor is not None:
            pad = _from_query(layer, tensor, axis, argument)
        if pad is not None and pad >= 0:
            yield role, pad // layer.halves if (role, axis) == ("w13_weight", 1) else pad


def _from_query(layer: MoELayer, tensor: ObservedTensor, axis: int, argument: str) -> int | None:
    """Return the hidden pad by the query's size, which is not sharded."""
    physical = tensor.observation.physical_shape
    if argument != "hidden_pad" or not layer.query.hidden_size or physical is None or len(physical) != 3:
        return None
    return physical[axis] - layer.query.hidden_size


def _accepted_pads(evidence: Evidence, argument: str, real: int) -> set[int]:
    return {real, *(real // multiple * multiple for multiple in ROUND_DOWN), *_by_convention(evidence, argument, real)}


def _by_convention(evidence: Evidence, argument: str, real: int) -> Iterator[int]:
    """Yield the pads that engines pass by a convention of their own."""
    for compiled in evidence.pad_conventions:
        entry: PadConventionEntry = compiled.entry
        if entry.argument == argument and _applies(compiled, evidence.layer):
            yield real // entry.round_down * entry.round_down * entry.times


def _applies(compiled: Compiled, layer: MoELayer) -> bool:
    """Return whether a pad convention may be in use.

    Nothing known contradicts it, and its engine, where it has one, is named.
    """
    conditions = (*compiled.deployment, *compiled.run)
    unknown = [c for c in conditions if c.fact != "engine" and layer.facts.get(c.fact) is None]
    return all(condition in unknown or condition.holds(layer.facts) for condition in conditions)


def pad_unreported(evidence: Evidence) -> Iterator[Finding]:
    """Yield pad arguments of 0 where tensors are padded."""
    for argument in _PADDED_BY:
        if getattr(evidence.layer.applied, argument) != 0:
            continue
        pads = [(role, pad) for role, pad in _real_pads(evidence.layer, argument) if pad > 0]
        if not pads:
            continue
        role, real = pads[0]
        if 0 in _by_convention(evidence, argument, real):
            continue
        yield Finding.of(
            "pad_unreported",
            f"{argument}=0 is passed though {real} of {role} are padding: right, but slower",
            role=role,
            expected=str(real),
            actual="0",
            fix=f"pass {argument}={real}",
        )

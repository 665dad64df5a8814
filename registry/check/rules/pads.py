"""pad_required, pad_fill, pad_invalid, pad_unreported: whole tiles, what fills them, and what the call says of it."""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.base.words import Role
from preshuffle.registry.check.deployment.evidence import Look, at
from preshuffle.registry.check.deployment.kernel_runs import Run
from preshuffle.registry.check.deployment.observed_layer import WEIGHTS, Scene, Seen, units
from preshuffle.registry.entries import KernelNeedEntry, PadConventionEntry
from preshuffle.registry.loading import Compiled
from preshuffle.registry.values.finding import Finding

_LOADED = (*WEIGHTS, "w13_bias", "w2_bias")
ROUND_DOWN = (64, 128)
"""Kernel families round a pad down to these multiples themselves; a caller may do it for them."""
_PADDED_BY: dict[str, tuple[tuple[Role, int], ...]] = {
    "hidden_pad": (("w13_weight", 2), ("w2_weight", 1)),
    "intermediate_pad": (("w2_weight", 2), ("w13_weight", 1)),
}


def pad_required(look: Look) -> Iterator[Finding]:
    """Dimensions must be whole tiles of the layout, whole scale groups, and what the kernel's own tiles need."""
    told: set[str] = set()
    for seen in look.scene.tensors.values():
        yield from _tiles(look.scene, seen, told)
    for entry in look.scene.book.entries["kernel_needs"].values():
        yield from _needs(look, entry, told)


def _tiles(scene: Scene, seen: Seen, told: set[str]) -> Iterator[Finding]:
    layout = seen.layout
    shape = units(scene, seen, layout) if layout and layout.id != "plain" else None
    if layout is None or shape is None:
        return
    flat = layout.unit == "group" and not layout.pattern.splits_gate_up  # AITER pads those rows at the flattened tail
    for name, size, multiple in (("rows", shape[1], layout.pattern.row_tile), ("K", shape[2], layout.k_multiple)):
        if size % multiple and not (flat and name == "rows"):
            padded = -(-size // multiple) * multiple
            unit = "" if name == "rows" else f" {layout.unit}s"
            told.add(_dimension(seen.role, name))
            yield Finding.of(
                "pad_required",
                f"{name} = {size}{unit}{_at_tp(scene)} is not a multiple of {multiple}, a tile of {layout.id}",
                role=seen.role,
                expected=f"{name} padded to {padded}{unit}",
                actual=f"{size}{unit}",
                fix=f"pad {name} of {seen.role} to {padded}{unit} before the layout is applied",
            )


def _at_tp(scene: Scene) -> str:
    """Say the tensor-parallel size where it was observed."""
    return f" at tp {scene.query.tp}" if "tp" in scene.stated else ""


def _dimension(role: str, name: str) -> str:
    inner = role.startswith("w13") == (name == "rows")
    return "inter_dim" if inner else "model_dim"


def _needs(look: Look, entry: KernelNeedEntry, told: set[str]) -> Iterator[Finding]:
    if entry.quant_type and look.scene.query.quant_type not in entry.quant_type:
        return
    for need in entry.needs:
        size = look.scene.sizes[need.dimension == "inter_dim"]
        if not size or size <= need.above or not size % need.multiple or need.dimension in told:
            continue
        runs = [run for run in look.runs if _asks(run, entry)]
        if not runs:
            continue
        told.add(need.dimension)
        padded = -(-size // need.multiple) * need.multiple
        role: Role = "w2_weight" if need.dimension == "inter_dim" else "w13_weight"
        name = "the intermediate size of a rank" if need.dimension == "inter_dim" else "the hidden size"
        where = f" ({runs[0].what} {at(runs)})" if entry.families else ""
        yield Finding.of(
            "pad_required",
            f"{name} is {size}{_at_tp(look.scene)}: not a multiple of {need.multiple}; {entry.because}{where}",
            role=role,
            expected=f"{need.dimension} padded to {padded}",
            actual=str(size),
            fix=f"pad {name} to {padded} with zeros and pass the pad, or take another tp",
            evidence=entry.evidence,
        )


def _asks(run: Run, entry: KernelNeedEntry) -> bool:
    if not entry.families:
        return True
    return not run.blocked and any(family in entry.families for family in run.families if family)


def pad_fill(look: Look) -> Iterator[Finding]:
    """Padding takes part in the sum: weights and biases must be padded with zeros, scales with anything defined."""
    for seen in look.scene.tensors.values():
        fill = seen.what.pad_fill
        if fill in (None, "zero", 0) or _unpadded(seen):
            continue
        loaded = seen.role in _LOADED
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
            role=seen.role,
            expected="zero" if loaded else "any defined byte, e.g. 127 (a scale of 1)",
            actual=str(fill),
            fix="allocate with zeros (torch.zeros, not torch.empty), or fill the padding before the layout is applied",
        )


def _unpadded(seen: Seen) -> bool:
    logical, physical = seen.what.logical_shape, seen.what.physical_shape
    return logical is not None and logical == physical


def pad_invalid(look: Look) -> Iterator[Finding]:
    """A pad that is too large hides live values; one that is neither raw nor rounded down was computed elsewhere."""
    for argument in _PADDED_BY:
        passed = getattr(look.scene.applied, argument)
        for role, real in _real(look.scene, argument) if passed else ():
            if passed in _right(look, argument, real):
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


def _real(scene: Scene, argument: str) -> Iterator[tuple[Role, int]]:
    """Yield what each tensor says the pad is."""
    for role, axis in _PADDED_BY[argument]:
        seen = scene.tensors.get(role)
        pad = seen.padded(axis) if seen else None
        if pad is None and seen is not None:
            pad = _from_query(scene, seen, axis, argument)
        if pad is not None and pad >= 0:
            yield role, pad // scene.halves if (role, axis) == ("w13_weight", 1) else pad


def _from_query(scene: Scene, seen: Seen, axis: int, argument: str) -> int | None:
    """The hidden size is not sharded, so the query gives it where the deployment does not declare it."""
    physical = seen.what.physical_shape
    if argument != "hidden_pad" or not scene.query.hidden_size or physical is None or len(physical) != 3:
        return None
    return physical[axis] - scene.query.hidden_size


def _right(look: Look, argument: str, real: int) -> set[int]:
    return {real, *(real // multiple * multiple for multiple in ROUND_DOWN), *_conventional(look, argument, real)}


def _conventional(look: Look, argument: str, real: int) -> Iterator[int]:
    """What engines that have a convention of their own pass."""
    for compiled in look.extra["pad_conventions"]:
        entry: PadConventionEntry = compiled.entry
        if entry.argument == argument and _applies(compiled, look.scene):
            yield real // entry.round_down * entry.round_down * entry.times


def _applies(compiled: Compiled, scene: Scene) -> bool:
    """Whether a convention may be in use: nothing known contradicts it, and its engine, where it has one, is named."""
    conditions = (*compiled.whole, *compiled.run)
    unknown = [c for c in conditions if c.fact != "engine" and scene.facts.get(c.fact) is None]
    return all(condition in unknown or condition.holds(scene.facts) for condition in conditions)


def pad_unreported(look: Look) -> Iterator[Finding]:
    """A pad of 0 is right (the padding is zeros) but makes the kernel compute on it."""
    for argument in _PADDED_BY:
        if getattr(look.scene.applied, argument) != 0:
            continue
        pads = [(role, pad) for role, pad in _real(look.scene, argument) if pad > 0]
        if not pads:
            continue
        role, real = pads[0]
        if 0 in _conventional(look, argument, real):
            continue
        yield Finding.of(
            "pad_unreported",
            f"{argument}=0 is passed though {real} of {role} are padding: right, but slower",
            role=role,
            expected=str(real),
            actual="0",
            fix=f"pass {argument}={real}",
        )

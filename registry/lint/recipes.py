"""Lint of recipes, alone and against the book."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from preshuffle.registry.algebra.layout import Layout
from preshuffle.registry.base.errors import Problem
from preshuffle.registry.base.words import BLOCK_ROWS, GROUP, QuantType, Role, Step
from preshuffle.registry.entries import PadRule, PadStep, Recipe, TensorRecipe
from preshuffle.registry.loading import Book, Place

W13 = ("w13_weight", "w13_weight_scale")
SCALES: tuple[tuple[Role, Role], ...] = (("w13_weight", "w13_weight_scale"), ("w2_weight", "w2_weight_scale"))


def recipe_problems(book: Book, recipe: Recipe) -> Iterator[Problem]:
    """Yield what is wrong with a recipe."""
    place = book.places["recipes", recipe.id]
    for role, tensor in recipe.tensors.items():
        if tensor.layout not in book.known_layouts:
            inside = ("tensors", role, "layout")
            yield place.unknown("unknown layout", tensor.layout, sorted(book.known_layouts), *inside)
            continue
        yield from _layout(place, recipe, role, tensor, book.layout(tensor.layout))
        yield from _steps(place, recipe, role, tensor)
    yield from _scales(place, recipe)
    yield from _dimensions(place, recipe)
    yield from _call(book, place, recipe)
    for feature in recipe.requires.aiter:
        if feature not in book.features:
            yield place.unknown("unknown AITER feature", feature, book.features, "requires", "aiter")
    for name in recipe.env:
        if name not in book.flags:
            yield place.unknown("unknown switch", name, book.flags, "env", name)


def _layout(place: Place, recipe: Recipe, role: Role, tensor: TensorRecipe, layout: Layout) -> Iterator[Problem]:
    """A tensor's layout against gate_mode, its row order, its padding and its role."""
    at = ("tensors", role)
    splits = layout.pattern.splits_gate_up
    one_each = role.endswith("_input_scale") or (role.endswith("_scale") and recipe.call.quant_type == "per_Tensor")
    if one_each and layout.id != "plain":
        yield place.problem(f"{role} has one number for each expert, which {layout.id} cannot order", *at, "layout")
    if splits and not role.startswith("w13"):
        yield place.problem(f"{role} has no gate and up, which {layout.id} interleaves", *at, "layout")
    elif splits and tensor.order == "GUGU":
        text = f"{role}: order GUGU alternates single rows, and {layout.id} interleaves gate and up itself"
        yield place.problem(text, *at, "order")
    elif role in W13 and recipe.call.function == "fused_moe":
        needed = "interleave" if tensor.order == "GUGU" else layout.gate_mode
        if needed != recipe.call.gate_mode:
            rows = " with rows that alternate" if tensor.order == "GUGU" else ""
            text = (
                f"{role} is {tensor.layout}{rows}, whose bytes a kernel reads with gate_mode={needed}, "
                f"but the call says gate_mode={recipe.call.gate_mode}"
            )
            yield place.problem(text, *at, "layout")
    if tensor.tail is None:
        if layout.unit == "group" and any(multiple % layout.k_multiple for multiple in _multiples(tensor.pad.k)):
            multiple, found = layout.k_multiple, _words(tensor.pad.k)
            text = f"{role}: pad.k {found} is not a multiple of {multiple}, the tile of {layout.id}"
            yield place.problem(text, *at, "pad")
        return
    yield from _tail(place, recipe, role, tensor, layout)


def _tail(place: Place, recipe: Recipe, role: Role, tensor: TensorRecipe, layout: Layout) -> Iterator[Problem]:
    """AITER pads flattened group scales; a layout that moves gate and up needs each expert's rows whole."""
    tail, at = tensor.tail, ("tensors", role, "tail")
    if tail is None:
        return
    if not role.endswith("_weight_scale") or recipe.call.quant_type != "per_1x32":
        yield place.problem(f"{role}: only scales of groups of 32 are padded at their flattened tail", *at)
    if tail.k % layout.k_multiple:
        text = f"{role}: tail.k {tail.k} is not a multiple of {layout.k_multiple}, the tile of {layout.id}"
        yield place.problem(text, *at)
    if layout.pattern.splits_gate_up and tail.rows != 1:
        text = f"{role}: {layout.id} moves gate and up of each expert, so its rows cannot be padded at the tail"
        yield place.problem(text, *at)
    elif tail.rows != 1 and tail.rows % layout.row_multiple:
        text = f"{role}: tail.rows {tail.rows} is not a multiple of {layout.row_multiple}, the tile of {layout.id}"
        yield place.problem(text, *at)


@dataclass(frozen=True, slots=True)
class _Allowed:
    """Where a step may stand."""

    roles: tuple[str, ...]
    dtypes: tuple[str, ...]
    quant_types: tuple[QuantType, ...] = ()


_FP8 = ("fp8", "fp8_e4m3fnuz")
_STEPS: Final[dict[Step, _Allowed]] = {
    "fnuz": _Allowed(("_weight", "_weight_scale", "_input_scale"), (*_FP8, "fp32", "e8m0")),
    "requantize_max": _Allowed(
        ("w13_weight", "w13_weight_scale"), (*_FP8, "fp8_e4m3fn", "fp32"), ("per_Tensor", "per_Token")
    ),
    "reduce_max": _Allowed(("_input_scale",), ("fp32",)),
    "fold": _Allowed(("_weight_scale",), ("fp32", "bf16")),
    "fold_max": _Allowed(("w13_weight_scale",), ("fp32", "bf16")),
    "pack_int4": _Allowed(("_weight",), ("i4x2",)),
}
_ORDER = tuple(_STEPS)
_INPUTS: Final[dict[Role, Role]] = {"w13_weight": "w13_input_scale", "w2_weight": "w2_input_scale"}
"""Weight and the static scale of its activations, which are the GPU's own fp8 too."""


def _steps(place: Place, recipe: Recipe, role: Role, tensor: TensorRecipe) -> Iterator[Problem]:
    at = ("tensors", role, "steps")
    for step in tensor.steps:
        allowed = _STEPS[step]
        if not role.endswith(allowed.roles):
            yield place.problem(f"{step} is no step for {role}", *at, valid=allowed.roles)
        elif tensor.dtype not in allowed.dtypes:
            yield place.problem(f"{step} is no step for {tensor.dtype}", *at, valid=allowed.dtypes)
        elif allowed.quant_types and recipe.call.quant_type not in allowed.quant_types:
            text = f"{step} is no step for quant_type {recipe.call.quant_type}"
            yield place.problem(text, *at, valid=allowed.quant_types)
    if tensor.default is not None and not {"fold", "fold_max"} & set(tensor.steps):
        text = f"{role} has a default, and no step folds the checkpoint's own scale into it"
        yield place.problem(text, "tensors", role, "default", valid=("a step fold or fold_max",))
    ordered = sorted(set(tensor.steps), key=_ORDER.index)
    if list(tensor.steps) != ordered:
        text = f"{role}: steps {', '.join(tensor.steps)}; each comes once, in the order {', '.join(ordered)}"
        yield place.problem(text, *at)


def _scales(place: Place, recipe: Recipe) -> Iterator[Problem]:
    """A weight and its scale change their values together and are padded to the same size."""
    for weight, scale in SCALES:
        first, second = recipe.tensors[weight], recipe.tensors.get(scale)
        if second is None:
            continue
        if recipe.call.quant_type == "No":
            yield place.problem(f"quant_type No has no {scale}", "tensors", scale)
            continue
        for step in ("fnuz", "requantize_max"):
            folded = step == "requantize_max" and "fold_max" in second.steps
            if (step in first.steps) != (folded or step in second.steps):
                has, lacks = (weight, scale) if step in first.steps else (scale, weight)
                yield place.problem(f"{has} names the step {step}, and {lacks} does not", "tensors", lacks)
        yield from _pads(place, recipe.call.quant_type, weight, first, scale, second)
        activations = recipe.tensors.get(input_role := _INPUTS[weight])
        if activations is not None and "fnuz" in first.steps and "fnuz" not in activations.steps:
            yield place.problem(f"{weight} names the step fnuz, and {input_role} does not", "tensors", input_role)


def _pads(
    place: Place, quant_type: QuantType, weight: Role, first: TensorRecipe, scale: Role, second: TensorRecipe
) -> Iterator[Problem]:
    """A scale has as many padded rows and groups as its weight, or a kernel would read past one of them."""
    if quant_type == "per_Tensor":
        return
    block, group = BLOCK_ROWS.get(quant_type, 1), GROUP.get(quant_type)
    rows, k = _shared(first.pad.rows, block), _shared(first.pad.k, group) if group else 1
    if (rows, k) != (second.pad.rows, second.pad.k):
        groups = f"{_words(second.pad.k)} groups"
        values = f" ({second.pad.k * group} values)" if group and isinstance(second.pad.k, int) else ""
        yield place.problem(
            f"{weight} is padded to {_words(first.pad.rows)} rows and {_words(first.pad.k)} values of K, {scale} to "
            f"{_words(second.pad.rows)} rows and {groups}{values}",
            *("tensors", scale, "pad"),
        )


def _shared(rule: PadRule, group: int) -> PadRule | None:
    """Return a weight's padding rule in groups; None where it cuts a group."""
    if isinstance(rule, int):
        return 1 if rule == 1 else rule // group if rule % group == 0 else None
    steps: list[PadStep] = []
    for step in rule:
        if step.to % group or (step.upto or group) % group:
            return None
        steps.append(PadStep(upto=step.upto and step.upto // group, to=step.to // group))
    return tuple(steps)


def _dimensions(place: Place, recipe: Recipe) -> Iterator[Problem]:
    """Hidden and intermediate size are one number each, which a kernel takes from w2 and uses for all tensors."""
    w2 = recipe.tensors["w2_weight"].pad
    pairs: tuple[tuple[Role, str, str, PadRule], ...] = (
        ("w13_weight", "k", "w2_weight's rows", w2.rows),
        ("w13_weight", "rows", "w2_weight's K", w2.k),
        ("w2_bias", "rows", "w2_weight's rows", w2.rows),
        ("w13_bias", "rows", "w2_weight's K", w2.k),
    )
    for role, side, other, rule in pairs:
        tensor = recipe.tensors.get(role)
        found: PadRule = getattr(tensor.pad, side) if tensor else rule
        if found != rule:
            text = f"{role}: pad.{side} {_words(found)}, and {other} are padded to {_words(rule)}"
            yield place.problem(text, "tensors", role, "pad", side)


def _call(book: Book, place: Place, recipe: Recipe) -> Iterator[Problem]:
    call, functions, labels = recipe.call, book.entries["functions"], book.entries["scale_labels"]
    entry = functions.get(call.function)
    if entry is None:
        yield place.unknown("unknown function", call.function, functions, "call", "function")
    elif call.backend not in entry.backends:
        text = f"backend {call.backend} does not run behind {call.function}"
        yield place.problem(text, "call", "backend", valid=entry.backends)
    if call.swizzle_mx_scale is not None and call.swizzle_mx_scale not in labels:
        yield place.unknown("unknown scale label", call.swizzle_mx_scale, labels, "call", "swizzle_mx_scale")


def _multiples(rule: PadRule) -> tuple[int, ...]:
    return (rule,) if isinstance(rule, int) else tuple(step.to for step in rule)


def _words(rule: PadRule) -> str:
    if isinstance(rule, int):
        return str(rule)
    return ", ".join(f"{step.to} up to {step.upto}" if step.upto else f"{step.to}" for step in rule)

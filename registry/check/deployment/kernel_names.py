"""Kernels that were observed by name: their families, what they read in this call, and names that nobody knows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from preshuffle.registry.check.deployment.observed_layer import Scene
from preshuffle.registry.check.deployment.possible_calls import World
from preshuffle.registry.entries import KernelLabelEntry
from preshuffle.registry.kernels import KernelChoice, RuntimeFacts, Stage

_ACTIVATIONS = {
    "fp4": "fp4x2", "FP4X2": "fp4x2", "fp8": "fp8", "F8": "fp8", "bf16": "bf16", "B16": "bf16", "fp16": "fp16",
    "F16": "fp16", "I8": "i8",
}  # fmt: skip
"""How kernel names spell the dtype of their activations (group ``a`` of a family's grammar)."""


@dataclass(frozen=True, slots=True)
class NamedKernel:
    """What the names of two stages say.

    Attributes:
        takes: the activation dtype that stage 1 takes.
        named_takes: whether the name itself says so.
        unknown: names that no family and no label knows.
    """

    families: tuple[str, str]
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    takes: str | None = None
    named_takes: bool = False
    one_stage: bool | None = None
    unknown: tuple[str, ...] = ()


def label_of(scene: Scene, name: str) -> KernelLabelEntry | None:
    """Return the book's label that a name is, where it is no kernel's full name."""
    for entry in scene.book.entries["kernel_labels"].values():
        if re.fullmatch(entry.pattern, name, re.IGNORECASE):
            return entry  # type: ignore[no-any-return]
    return None


def read_names(scene: Scene, world: World | None, names: tuple[str, str], choice: KernelChoice | None) -> NamedKernel:
    """Read the names of stage 1 and stage 2 (``""`` where none was observed)."""
    book, families = scene.book.families, ["", ""]
    reads: dict[str, tuple[str, ...]] = {}
    unknown: list[str] = []
    takes: str | None = None
    one_stage = None
    for position, name in enumerate(names):
        if not name:
            continue
        parsed = book.parse_name(name)
        label = None if parsed else label_of(scene, name)
        if parsed is not None:
            families[position] = parsed[0]
            said = _ACTIVATIONS.get(parsed[1].get("a", ""))
            takes = takes or (said if position == 0 else None)
            one_stage = book.by_id[parsed[0]].stage == "1-stage" if position == 0 else one_stage
            reads |= _reads(scene, world, name, parsed, said, choice)
        elif label is not None:
            families[position] = label.families.get("2" if position else "1", "")
            takes = takes or (label.takes if position == 0 else None)
            predicted = dict(_predicted(choice, families[position], label.takes))
            reads |= predicted or {r: v for r, v in label.reads.items() if r.startswith("w2") == bool(position)}
        else:
            unknown.append(name)
    return NamedKernel((families[0], families[1]), reads, takes, takes is not None, one_stage, tuple(unknown))


def _reads(
    scene: Scene,
    world: World | None,
    name: str,
    parsed: tuple[str, dict[str, str]],
    said: str | None,
    choice: KernelChoice | None,
) -> dict[str, tuple[str, ...]]:
    query = scene.query
    if world is None or query.quant_type is None or query.weight_dtype is None:
        return {}
    id, groups = parsed
    owner = scene.book.families.by_id[id]
    dtype = said or (choice.activation_dtype if choice else None) or query.weight_dtype
    shuffled = "true" if groups.get("preshuffle", world.is_shuffled) else "false"  # a name that says it, says it
    facts = RuntimeFacts(dtype, query.weight_dtype, query.quant_type, world.gate_mode, shuffled, "", "")
    second = owner.stage == "2"
    func = owner.funcs[0]
    families = scene.book.families
    stages = (
        families.stages_of("", "", func, name, facts) if second else families.stages_of(func, name, None, "", facts)
    )
    stage = stages[1] if second else stages[0]
    return {role: (layout,) for role, layout in stage.reads.items()} if stage else {}


def _predicted(choice: KernelChoice | None, id: str, takes: str | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Where the prediction is of the labelled family (and dtype), it says what is read."""
    if choice is None or (takes is not None and choice.activation_dtype != takes):
        return
    stages: tuple[Stage | None, ...] = (choice.stage1, choice.stage2)
    for stage in stages:
        if stage is not None and stage.family == id:
            yield from ((role, (layout,)) for role, layout in stage.reads.items())

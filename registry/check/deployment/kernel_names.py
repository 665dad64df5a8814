"""Kernel names as observed: families, reads, and unknown names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from preshuffle.registry.base.linear_pattern import linear_pattern
from preshuffle.registry.entries import KernelLabelEntry
from preshuffle.registry.kernels import KernelChoice, RuntimeFacts, Stage
from preshuffle.registry.layer import MoELayer, PossibleCall

_ACTIVATIONS = {
    "fp4": "fp4x2", "FP4X2": "fp4x2", "fp8": "fp8", "F8": "fp8", "bf16": "bf16", "B16": "bf16", "fp16": "fp16",
    "F16": "fp16", "I8": "i8",
}  # fmt: skip
"""Activation dtypes as kernel names spell them (group ``a``)."""


@dataclass(frozen=True, slots=True)
class NamedKernel:
    """What the kernel names of two stages say.

    Attributes:
        takes: the activation dtype that stage 1 takes.
        named_takes: whether the name itself says so.
        unknown: names that no family and no label knows.
        known: kind and id of the evidence for what is read, by role.
    """

    families: tuple[str, str]
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    takes: str | None = None
    named_takes: bool = False
    one_stage: bool | None = None
    unknown: tuple[str, ...] = ()
    known: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def known_of(stage: Stage) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each role that has evidence, with its kind and id."""
    for role, id in stage.evidence.items():
        yield role, (stage.known[role], id)


def label_of(layer: MoELayer, name: str) -> KernelLabelEntry | None:
    """Return the label that a name is; None for full names."""
    for entry in layer.book.entries["kernel_labels"].values():
        if linear_pattern(entry.pattern, ignore_case=True).matches(name):
            return entry  # type: ignore[no-any-return]
    return None


def read_names(
    layer: MoELayer, call: PossibleCall | None, names: tuple[str, str], choice: KernelChoice | None
) -> NamedKernel:
    """Parse the kernel names of both stages.

    Args:
        layer: the deployment.
        call: the call that is supposed; None where none fits, and then nothing is known of what is read.
        names: of stage 1 and stage 2; ``""`` where none was observed.
        choice: what AITER would choose; None where that is not known.
    """
    book, families = layer.book.families, ["", ""]
    reads: dict[str, tuple[str, ...]] = {}
    known: dict[str, tuple[str, str]] = {}
    unknown: list[str] = []
    takes: str | None = None
    one_stage = None
    for position, name in enumerate(names):
        if not name:
            continue
        parsed = book.parse_name(name)
        label = None if parsed else label_of(layer, name)
        if parsed is not None:
            families[position] = parsed[0]
            spelled = _ACTIVATIONS.get(parsed[1].get("a", ""))
            takes = takes or (spelled if position == 0 else None)
            one_stage = book.by_id[parsed[0]].stage == "1-stage" if position == 0 else one_stage
            stage = _stage(layer, call, name, parsed, spelled, choice)
            if stage is not None:
                reads |= {role: (layout,) for role, layout in stage.reads.items()}
                known |= known_of(stage)
        elif label is not None:
            families[position] = label.families.get("2" if position else "1", "")
            takes = takes or (label.takes if position == 0 else None)
            predicted = dict(_predicted(choice, families[position], label.takes))
            reads |= predicted or {r: v for r, v in label.reads.items() if r.startswith("w2") == bool(position)}
        else:
            unknown.append(name)
    return NamedKernel((families[0], families[1]), reads, takes, takes is not None, one_stage, tuple(unknown), known)


def _stage(
    layer: MoELayer,
    call: PossibleCall | None,
    name: str,
    parsed: tuple[str, dict[str, str]],
    spelled: str | None,
    choice: KernelChoice | None,
) -> Stage | None:
    query = layer.query
    if call is None or query.quant_type is None or query.weight_dtype is None:
        return None
    id, groups = parsed
    owner = layer.book.families.by_id[id]
    dtype = spelled or (choice.activation_dtype if choice else None) or query.weight_dtype
    shuffled = "true" if groups.get("preshuffle", call.is_shuffled) else "false"  # a name that says it, says it
    activation = query.activation or ""
    facts = RuntimeFacts(
        dtype, query.weight_dtype, query.quant_type, call.gate_mode, shuffled, "", "", query.arch, activation
    )
    second = owner.stage == "2"
    func = owner.funcs[0]
    families = layer.book.families
    stages = (
        families.stages_of("", "", func, name, facts) if second else families.stages_of(func, name, None, "", facts)
    )
    return stages[1] if second else stages[0]


def _predicted(choice: KernelChoice | None, id: str, takes: str | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the predicted reads of a labelled family and dtype."""
    if choice is None or (takes is not None and choice.activation_dtype != takes):
        return
    stages: tuple[Stage | None, ...] = (choice.stage1, choice.stage2)
    for stage in stages:
        if stage is not None and stage.family == id:
            yield from ((role, (layout,)) for role, layout in stage.reads.items())

"""Rules on layouts: bytes in memory against what kernels read.

Codes: layout_mismatch, fallback_layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from preshuffle.registry.algebra.layout import Layout
from preshuffle.registry.base.words import Role
from preshuffle.registry.check.deployment.evidence import Evidence, at
from preshuffle.registry.check.deployment.kernel_runs import KernelRun
from preshuffle.registry.layer import SCALES, WEIGHTS, MoELayer, ObservedTensor, either_of
from preshuffle.registry.loading import Book
from preshuffle.registry.values.finding import Finding


def layout_mismatch(evidence: Evidence) -> Iterator[Finding]:
    """Yield tensors whose bytes a kernel reads in another layout."""
    families, arch = evidence.layer.book.families, evidence.layer.query.arch
    exist = {ids: families.exist_for(arch, ids) for ids in {run.families for run in evidence.runs}}
    reading = [run for run in evidence.runs if run.reader != "unknown" and not run.blocked and exist[run.families]]
    misread: set[Role] = set()
    for role, tensor in evidence.layer.tensors.items():
        for allowed in dict.fromkeys(run.reads.get(role, ()) for run in reading):
            if allowed and reads_otherwise(evidence.layer, tensor, allowed):
                misread.add(role)
                runs = [run for run in reading if run.reads.get(role, ()) == allowed]
                yield _mismatch(evidence, tensor, allowed, runs)
    yield from _scales(evidence, misread)
    yield from _adapters(evidence)
    for entry, hits in evidence.contracts:
        if entry.code == "layout_mismatch":
            message = f"{entry.says} ({hits[0].name})"
            yield Finding.of(entry.code, message, role=entry.role, fix=entry.fix, evidence=entry.evidence)


def reads_otherwise(layer: MoELayer, tensor: ObservedTensor, allowed: tuple[str, ...]) -> bool:
    """Return whether a tensor lies in none of the allowed layouts."""
    if tensor.layout is None:
        return False
    known = layer.memo.get("layouts under", allowed, lambda: _layouts_under(layer.book, allowed))
    if len(known) < len(allowed) and not tensor.plain:  # plain bytes are no packing, whichever it is
        return False
    return not any(layer.reads_same(tensor, name) for name in known)


def _layouts_under(book: Book, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the book's layouts among some names, those under packings included."""
    packings = book.entries["packings"]
    under = (packings[name].under if name in packings else name for name in names)
    return tuple(name for name in under if name in book.known_layouts)


def _mismatch(evidence: Evidence, tensor: ObservedTensor, allowed: tuple[str, ...], runs: list[KernelRun]) -> Finding:
    book, actual = evidence.layer.book, tensor.layout
    assert actual is not None
    wanted = book.layout(allowed[0]) if allowed[0] in book.known_layouts else None
    names = either_of(dict.fromkeys(run.name for run in runs[:2]))
    gate_mode = f" (gate_mode={evidence.call.gate_mode})" if evidence.call and runs[0].reader == "aiter" else ""
    message = (
        f"bytes are {actual.id} ({_title(evidence, actual)}); {names}{gate_mode} reads {either_of(allowed)} {at(runs)}"
    )
    return Finding.of(
        "layout_mismatch",
        message,
        role=tensor.role,
        expected=either_of(allowed),
        actual=actual.id,
        fix=_fix(evidence, tensor, wanted, runs) if wanted else f"pack {tensor.role} as {either_of(allowed)}",
    )


def _fix(evidence: Evidence, tensor: ObservedTensor, wanted: Layout, runs: list[KernelRun]) -> str:
    actual = tensor.layout
    assert actual is not None
    lay = f"lay {tensor.role} out as {wanted.id}{_recipe(evidence, tensor.role, wanted.id)}"
    served = _runs_served(evidence, tensor, runs)
    if runs[0].reader == "own":
        run_other = f"run a kernel that reads {actual.id}"
        return f"{run_other} at every token count" if served else f"{lay}, which {runs[0].name} reads, or {run_other}"
    call = evidence.call
    if call and tensor.role.startswith("w13") and actual.gate_mode != wanted.gate_mode != actual.id != "plain":
        families, arch = evidence.layer.book.families, evidence.layer.query.arch
        if call.gate_mode != actual.gate_mode and families.read_on(arch, tensor.role, actual.id):
            return f"pass gate_mode={actual.gate_mode}" + ("" if served else f", or {lay}")
    if served:
        return (
            f"have one kernel family at every token count ({served[0].name} reads {actual.id} {at(served)}): "
            "table rows for this shape, or another activation dtype or backend"
        )
    return lay


def _runs_served(evidence: Evidence, tensor: ObservedTensor, misreading: Sequence[KernelRun]) -> list[KernelRun]:
    """Return the runs at other token counts that read a tensor as it lies: another layout would break them."""
    return [
        run
        for run in evidence.runs
        if run.lo is not None
        and run.reader == "aiter"
        and run not in misreading
        and (allowed := run.reads.get(tensor.role))
        and not reads_otherwise(evidence.layer, tensor, allowed)
    ]


def _recipe(evidence: Evidence, role: Role, layout: str) -> str:
    """Name a recipe of this engine with a layout for a role."""
    engine = evidence.layer.query.engine
    for rule in evidence.layer.book.rules.values():
        if rule.use is None:
            continue
        recipe = evidence.layer.book.recipes[rule.use]
        decided = recipe.tensors.get(role)
        fits = evidence.call is None or recipe.call.gate_mode == evidence.call.gate_mode
        own = rule.when.get("engine") in (None, engine.name if engine else None)
        if decided and decided.layout == layout and fits and own:
            if recipe.call.quant_type == evidence.layer.query.quant_type:
                return f" (recipe {recipe.id})"
    return ""


def _title(evidence: Evidence, layout: Layout) -> str:
    title: str = evidence.layer.book.layouts[layout.id].title
    return title[:1].lower() + title[1:]


def _scales(evidence: Evidence, reported: set[Role]) -> Iterator[Finding]:
    """Yield weights and scales whose rows are in different orders."""
    for scale, weight in SCALES.items():
        second, first = evidence.layer.tensors.get(scale), evidence.layer.tensors.get(weight)
        if reported & {scale, weight} or first is None or second is None or evidence.layer.group != 32:
            continue
        if not (first.laid_out and second.laid_out) or first.layout is None or second.layout is None:
            continue
        if first.layout.pattern.splits_gate_up != second.layout.pattern.splits_gate_up:
            yield Finding.of(
                "layout_mismatch",
                f"{weight} is {first.layout.id} and {scale} is {second.layout.id}: gate and up alternate in one of "
                "them only, so every kernel applies scales of other rows",
                role=scale,
                expected=f"a scale laid out like {first.layout.id}",
                actual=second.layout.id,
                fix=f"lay {scale} out in the row order of {weight}",
            )


def _adapters(evidence: Evidence) -> Iterator[Finding]:
    """Yield laid-out base weights that LoRA's kernels read as plain."""
    if not evidence.layer.applied.lora or evidence.layer.applied.kernels:
        return
    for role in WEIGHTS:
        tensor = evidence.layer.tensors.get(role)
        if tensor is not None and tensor.laid_out and tensor.layout is not None:
            yield Finding.of(
                "layout_mismatch",
                f"LoRA is on: its kernels read {role} as plain bytes; the bytes are {tensor.layout.id}",
                role=role,
                expected="plain",
                actual=tensor.layout.id,
                fix="keep the base weights plain where LoRA adapters are served, or serve without LoRA",
            )


def fallback_layout(evidence: Evidence) -> Iterator[Finding]:
    """Yield tensors whose bytes the fallback backend does not read."""
    name = evidence.layer.applied.fallback_backend
    entry = evidence.backends.find(name)
    variant = evidence.backends.variant(entry, evidence.layer)
    if entry is None or variant is None or variant.through == "aiter":
        return
    for role in WEIGHTS:
        tensor, allowed = evidence.layer.tensors.get(role), variant.reads.get(role)
        if (
            tensor is not None
            and tensor.layout is not None
            and allowed
            and reads_otherwise(evidence.layer, tensor, allowed)
        ):
            yield Finding.of(
                "fallback_layout",
                f"{name} takes over where the first backend fails, and reads {role} as {either_of(allowed)}; "
                f"the bytes are {tensor.layout.id}",
                role=role,
                expected=either_of(allowed),
                actual=tensor.layout.id,
                fix=f"decide for {name} while loading and leave the bytes {allowed[0]}, undo the layout before it "
                "runs, or switch the fallback off",
                evidence=entry.evidence,
            )

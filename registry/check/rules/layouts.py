"""layout_mismatch, fallback_layout: the bytes that lie there against the bytes that a kernel reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from preshuffle.registry.algebra.layout import Layout
from preshuffle.registry.base.words import Role
from preshuffle.registry.check.deployment.evidence import Look, at
from preshuffle.registry.check.deployment.kernel_runs import Run
from preshuffle.registry.check.deployment.observed_layer import SCALES, WEIGHTS, Scene, Seen, any_of, same_bytes
from preshuffle.registry.values.finding import Finding


def layout_mismatch(look: Look) -> Iterator[Finding]:
    """Every kernel that can run must read every tensor as it lies, at every token count."""
    wrong: dict[tuple[Role, tuple[str, ...]], list[Run]] = {}
    judged: dict[tuple[Role, tuple[str, ...]], bool] = {}
    families, arch = look.scene.book.families, look.scene.query.arch
    for run in look.runs:
        if run.reader == "unknown" or run.blocked or not families.exist_for(arch, run.families):
            continue
        for role, seen in look.scene.tensors.items():
            allowed = run.reads.get(role)
            if not allowed:
                continue
            key = (role, allowed)
            if key not in judged:
                judged[key] = reads_otherwise(look.scene, seen, allowed)
            if judged[key]:
                wrong.setdefault(key, []).append(run)
    for (role, allowed), runs in wrong.items():
        yield _mismatch(look, look.scene.tensors[role], allowed, runs)
    yield from _scales(look, {role for role, _ in wrong})
    yield from _adapters(look)
    for entry, hits in look.contracts:
        if entry.code == "layout_mismatch":
            message = f"{entry.says} ({hits[0].what})"
            yield Finding.of(entry.code, message, role=entry.role, fix=entry.fix, evidence=entry.evidence)


def reads_otherwise(scene: Scene, seen: Seen, allowed: Sequence[str]) -> bool:
    """Whether a tensor's bytes are known and none of the layouts that a kernel may read."""
    if seen.layout is None:
        return False
    known = [name for name in allowed if name in scene.book.known_layouts]
    if len(known) < len(allowed) and not seen.plain:  # plain bytes are no packing, whichever it is
        return False
    return not any(same_bytes(scene, seen, scene.book.layout(name)) for name in known)


def _mismatch(look: Look, seen: Seen, allowed: tuple[str, ...], runs: list[Run]) -> Finding:
    book, actual = look.scene.book, seen.layout
    assert actual is not None
    wanted = book.layout(allowed[0]) if allowed[0] in book.known_layouts else None
    names = any_of(dict.fromkeys(run.what for run in runs[:2]))
    gate_mode = f" (gate_mode={look.world.gate_mode})" if look.world and runs[0].reader == "aiter" else ""
    message = f"bytes are {actual.id} ({_title(look, actual)}); {names}{gate_mode} reads {any_of(allowed)} {at(runs)}"
    return Finding.of(
        "layout_mismatch",
        message,
        role=seen.role,
        expected=any_of(allowed),
        actual=actual.id,
        fix=_fix(look, seen, wanted, runs) if wanted else f"pack {seen.role} as {any_of(allowed)}",
    )


def _fix(look: Look, seen: Seen, wanted: Layout, runs: list[Run]) -> str:
    actual = seen.layout
    assert actual is not None
    lay = f"lay {seen.role} out as {wanted.id}{_recipe(look, seen.role, wanted.id)}"
    if runs[0].reader == "own":
        return f"{lay}, which {runs[0].what} reads, or run a kernel that reads {actual.id}"
    world = look.world
    if world and seen.role.startswith("w13") and actual.gate_mode != wanted.gate_mode != actual.id != "plain":
        if world.gate_mode != actual.gate_mode:
            return f"pass gate_mode={actual.gate_mode}, or {lay}"
    return lay


def _recipe(look: Look, role: Role, layout: str) -> str:
    """Name a recipe that a rule for this engine (or for none) uses, and that lays the role out so."""
    engine = look.scene.query.engine
    for rule in look.scene.book.rules.values():
        if rule.use is None:
            continue
        recipe = look.scene.book.recipes[rule.use]
        tensor = recipe.tensors.get(role)
        fits = look.world is None or recipe.call.gate_mode == look.world.gate_mode
        mine = rule.when.get("engine") in (None, engine.name if engine else None)
        if tensor and tensor.layout == layout and fits and mine:
            if recipe.call.quant_type == look.scene.query.quant_type:
                return f" (recipe {recipe.id})"
    return ""


def _title(look: Look, layout: Layout) -> str:
    title: str = look.scene.book.layouts[layout.id].title
    return title[:1].lower() + title[1:]


def _scales(look: Look, told: set[Role]) -> Iterator[Finding]:
    """A weight's and its scale's rows are in one order, whichever kernel reads them."""
    for scale, weight in SCALES.items():
        second, first = look.scene.tensors.get(scale), look.scene.tensors.get(weight)
        if told & {scale, weight} or first is None or second is None or look.scene.group != 32:
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


def _adapters(look: Look) -> Iterator[Finding]:
    """LoRA's expert kernels read the base weights as plain bytes."""
    if not look.scene.applied.lora or look.scene.applied.kernels:
        return
    for role in WEIGHTS:
        seen = look.scene.tensors.get(role)
        if seen is not None and seen.laid_out and seen.layout is not None:
            yield Finding.of(
                "layout_mismatch",
                f"LoRA is on: its kernels read {role} as plain bytes; the bytes are {seen.layout.id}",
                role=role,
                expected="plain",
                actual=seen.layout.id,
                fix="keep the base weights plain where LoRA adapters are served, or serve without LoRA",
            )


def fallback_layout(look: Look) -> Iterator[Finding]:
    """A fallback backend may take over only bytes that it reads."""
    name = look.scene.applied.fallback_backend
    entry = look.backends.find(name)
    variant = look.backends.variant(entry, look.scene)
    if entry is None or variant is None or variant.through == "aiter":
        return
    for role in WEIGHTS:
        seen, allowed = look.scene.tensors.get(role), variant.reads.get(role)
        if seen is not None and seen.layout is not None and allowed and reads_otherwise(look.scene, seen, allowed):
            yield Finding.of(
                "fallback_layout",
                f"{name} takes over where the first backend fails, and reads {role} as {any_of(allowed)}; "
                f"the bytes are {seen.layout.id}",
                role=role,
                expected=any_of(allowed),
                actual=seen.layout.id,
                fix=f"decide for {name} while loading and leave the bytes {allowed[0]}, undo the layout before it "
                "runs, or switch the fallback off",
                evidence=entry.evidence,
            )

"""Terminal view of a decision.

It shows recipe and reason, tensors, call, environment, kernels, alternatives and findings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from preshuffle.api.commands.screens.screen import Screen, shape_text, short_digest
from preshuffle.api.commands.screens.table import Cell, Column
from preshuffle.registry import Registry
from preshuffle.registry.base.words import STEPS, Step
from preshuffle.registry.kernels import Stage
from preshuffle.registry.launch import launch_of
from preshuffle.registry.loading import Book, known_lines, read_lines, reads_of
from preshuffle.registry.resolve import why_not_predicted
from preshuffle.registry.values.decision import Decision, KernelBucket, TensorDecision
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.query import Query

_TUNED = {True: Cell("yes", "good"), False: Cell("no", "warn"), None: Cell("unknown", "dim")}


def show_decision(screen: Screen, query: Query, decision: Decision, registry: Registry) -> None:
    """Show a decision."""
    screen.line(f"{screen.paint(decision.recipe, 'good')}  {screen.paint(query_text(query), 'bold')}")
    screen.pairs([("rule", decision.rule), ("reason", decision.reason), ("reason kind", decision.reason_kind)])
    _tensors(screen, decision)
    screen.heading("call and environment")
    arguments = decision.call.model_dump(mode="json")
    if decision.call.gate_mode_passed:
        del arguments["gate_mode_passed"]  # as one expects
    for name in ("doweight_stage1", "weighted_by_caller"):
        if not arguments[name]:
            del arguments[name]
    call = "  ".join(f"{name}={_plain(value)}" for name, value in arguments.items() if value is not None)
    env = "  ".join(f"{name}={value}" for name, value in decision.env.items())
    screen.pairs([("call", call), ("env", env or "nothing to set")])
    _launch(screen, query, decision, registry)
    _kernels(screen, query, decision, registry)
    if decision.alternatives:
        screen.heading("alternatives")
        rows = [(Cell(item.recipe, "name"), item.why_not) for item in decision.alternatives]
        screen.table([Column("recipe"), Column("why not", wraps=True)], rows)
    screen.heading("findings", "" if decision.findings else "none")
    show_findings(screen, decision.findings)
    screen.line()
    digests = f"decision {short_digest(decision.decision_digest)}  registry {short_digest(decision.registry_digest)}"
    screen.line(screen.paint(digests, "dim"))


def _launch(screen: Screen, query: Query, decision: Decision, registry: Registry) -> None:
    """Show the engine's command line as it can be pasted, where an engine is named."""
    if query.engine is None:
        return
    launch = launch_of(query, decision, registry.book)
    screen.heading("launch", "" if launch.line else launch.why_not)
    for line in (launch.line or "").splitlines():
        screen.line(f"  {line}")
    for note in launch.notes:
        screen.text(note, style="dim")


def query_text(query: Query) -> str:
    """Describe a query in a few words."""
    parts = [f"{query.model} on {query.arch}"]
    if query.activation_dtype:
        parts.append(f"{query.activation_dtype} activations")
    parts += [
        f"{name.upper()} {size}" for name, size in (("tp", query.tp), ("ep", query.ep), ("dp", query.dp)) if size > 1
    ]
    parts += [str(query.engine)] if query.engine else []
    parts += [f"AITER {query.aiter}"] if query.aiter else []
    return ", ".join(parts)


def show_findings(screen: Screen, findings: Sequence[Finding]) -> None:
    """Show findings, each with its fix."""
    rows = []
    for finding in findings:
        text = finding.message + (f"\nfix: {finding.fix}" if finding.fix else "")
        text += "".join(f"\nsee: {place}" for place in finding.evidence)
        style = "bad" if finding.severity == "error" else "warn"
        rows.append((Cell(finding.severity, style), Cell(finding.code, style), finding.role or "", text))
    columns = [
        Column("severity"),
        Column("code", wraps=True),
        Column("role", wraps=True),
        Column("message", wraps=True),
    ]
    if not any(finding.role for finding in findings):
        columns, rows = [*columns[:2], columns[3]], [(row[0], row[1], row[3]) for row in rows]  # type: ignore[misc]
    screen.table(columns, rows)


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tensors(screen: Screen, decision: Decision) -> None:
    screen.heading("tensors", "of rank 0, [experts, rows, K]; pads: rows (per half of w13), K")
    columns = [
        Column("role", wraps=True),
        Column("layout", wraps=True),
        Column("logical"),
        Column("physical"),
        Column("pad", right=True),
        Column("fill", right=True),
        Column("dtype"),
    ]
    rows = [
        (
            Cell(role, "name"),
            Cell(tensor.layout, "good"),
            shape_text(tensor.logical_shape),
            shape_text(tensor.physical_shape) if _is_padded(tensor) else "same",
            f"{tensor.pad.rows}, {tensor.pad.k}" if _is_padded(tensor) else "-",
            str(tensor.fill) if _is_padded(tensor) else "-",
            tensor.dtype,
        )
        for role, tensor in decision.tensors.items()
    ]
    screen.table(columns, rows)
    for note in _tensor_notes(decision):
        screen.text(note, style="dim")


def _tensor_notes(decision: Decision) -> Iterator[str]:
    orders: dict[str, list[str]] = {}
    for role, tensor in decision.tensors.items():
        if tensor.order is not None and tensor.source_order not in (None, tensor.order):
            orders.setdefault(f"{tensor.source_order} in the checkpoint become {tensor.order}", []).append(role)
    for change, roles in orders.items():
        yield f"rows that are {change}: {', '.join(roles)}"
    steps: dict[Step, list[str]] = {}
    for role, tensor in decision.tensors.items():
        for step in tensor.steps:
            steps.setdefault(step, []).append(role)
    for step, roles in steps.items():
        yield f"{step} ({STEPS[step]}): {', '.join(roles)}"
    tagged = [role for role, tensor in decision.tensors.items() if tensor.is_shuffled]
    if tagged:
        yield f"is_shuffled must be set on: {', '.join(tagged)}"
    rank0 = [role for role, tensor in decision.tensors.items() if tensor.rank0_only]
    if rank0:
        yield f"zeros on every tensor-parallel rank but 0: {', '.join(rank0)}"
    short = [f"{role} {shape_text(t.short_shape)}" for role, t in decision.tensors.items() if t.short_shape]
    if short:
        yield f"the last rank holds less: {', '.join(short)}"
    yield from _passed_notes(decision)


def _passed_notes(decision: Decision) -> Iterator[str]:
    """Yield what a kernel gets in another shape, may be left out, or is padded with two bytes."""
    shapes = [
        f"{role} {shape_text(tensor.passed_shape)}"
        for role, tensor in decision.tensors.items()
        if tensor.passed_shape not in (None, tensor.physical_shape)
    ]
    if shapes:
        yield f"passed to the kernel in another shape over the same bytes: {', '.join(shapes)}"
    tails = [
        f"{role} {tensor.tail.fill} from K {tensor.tail.first_k} on, {tensor.fill} before"
        for role, tensor in decision.tensors.items()
        if tensor.tail
    ]
    if tails:
        yield f"pads that hold two bytes: {'; '.join(tails)}"
    made = [f"{role} {tensor.default:g}" for role, tensor in decision.tensors.items() if tensor.default is not None]
    if made:
        yield f"made where the checkpoint has only the scale of the whole tensor: {', '.join(made)}"


def _is_padded(tensor: TensorDecision) -> bool:
    return tensor.logical_shape != tensor.physical_shape


def _kernels(screen: Screen, query: Query, decision: Decision, registry: Registry) -> None:
    if not decision.kernels:
        screen.heading("kernels", "not predicted")
        screen.text(why_not_predicted(query, decision.call, registry.book, "--cu-num")[0])
        for line in read_lines(registry.book, decision.reads):
            screen.text(f"kernels of {decision.call.backend} read {line}", style="dim")
        return
    screen.heading("kernels")
    rows: list[tuple[str, ...]] = []
    styles: list[Cell] = []
    for _, same in groupby(decision.kernels, key=_what_runs):
        buckets = list(same)
        first = buckets[0]
        tokens = ", ".join(str(bucket.tokens) for bucket in buckets)
        if first.error:
            rows.append((tokens, "-", first.error, ""))
        else:
            rows.append((tokens, first.activation_dtype or "unknown", _name(first.stage1), _second(first)))
        styles.append(_TUNED[first.tuned])
    _kernel_table(screen, rows, styles)
    show_known(
        screen, registry.book, [stage for bucket in decision.kernels for stage in (bucket.stage1, bucket.stage2)]
    )
    notes = dict.fromkeys(note for bucket in decision.kernels for note in bucket.notes)
    for note in notes:
        screen.text(note, style="dim")


def why_unpredicted(query: Query, decision: Decision, book: Book) -> tuple[str, tuple[str, ...]]:
    """Say why no kernels are predicted, and which fields are missing.

    The reason ends with what a backend's own kernels read.
    """
    text, missing = why_not_predicted(query, decision.call, book, "--cu-num")
    reads = read_lines(book, decision.reads)
    return "; ".join([text, *(f"kernels of {decision.call.backend} read {line}" for line in reads)]), missing


def stages_of(buckets: Iterable[KernelBucket]) -> Iterator[Stage | None]:
    """Yield the stages of kernels."""
    for bucket in buckets:
        yield bucket.stage1
        yield bucket.stage2


def show_known(screen: Screen, book: Book, stages: Iterable[Stage | None]) -> None:
    """Show how it is known what kernels read."""
    for line in known_lines(book, reads_of(stages)):
        screen.text(line, style="dim")


def _kernel_table(screen: Screen, rows: list[tuple[str, ...]], tuned: list[Cell]) -> None:
    """Show both stages side by side where they fit, else stacked."""
    names = [(len(first), len(second)) for _, _, first, second in rows]
    tokens = max(6, *(len(row[0]) for row in rows))
    side_by_side = 2 + tokens + 2 + 7 + 2 + max(a for a, _ in names) + 2 + max(b for _, b in names) + 2 + 7
    left = [Column("tokens", wraps=True), Column("acts")]
    if side_by_side <= screen.width:
        columns = [*left, Column("stage 1"), Column("stage 2"), Column("tuned")]
        screen.table(columns, [(*row, mark) for row, mark in zip(rows, tuned, strict=True)])
        return
    stacked = [
        (row[0], row[1], "\n".join(part for part in row[2:] if part), mark)
        for row, mark in zip(rows, tuned, strict=True)
    ]
    screen.table([*left, Column("stage 1, stage 2", wraps=True), Column("tuned")], stacked)


def _what_runs(bucket: KernelBucket) -> tuple[object, ...]:
    return bucket.activation_dtype, bucket.stage1, bucket.stage2, bucket.tuned, bucket.error, bucket.run_1stage


def _name(stage: Stage | None) -> str:
    return (stage.kernel or stage.func) if stage else "unknown"


def _second(bucket: KernelBucket) -> str:
    if bucket.stage2 is None:
        return "(both in one kernel)" if bucket.run_1stage else "unknown"
    return _name(bucket.stage2)

"""Findings of a decision: kernels, pads, switches and layouts compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from preshuffle.registry.algebra.layout import Layout
from preshuffle.registry.base.errors import LayoutError
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.base.ranges import merge_ranges
from preshuffle.registry.base.words import BITS, GROUP, Role, TensorDtype
from preshuffle.registry.entries import Recipe
from preshuffle.registry.kernels import Family, TokenBucket
from preshuffle.registry.layer import value_of
from preshuffle.registry.loading import Book
from preshuffle.registry.resolve.kernels import DISPATCHED
from preshuffle.registry.values.decision import KernelBucket, TensorDecision
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.query import Query


def layer_findings(
    query: Query, book: Book, recipe: Recipe, tensors: Mapping[Role, TensorDecision], memo: Memo
) -> Iterator[Finding]:
    """Yield findings on a recipe and a layer's sizes."""
    yield from _cut_through(query, recipe)
    yield from _not_passed(query, recipe)
    yield from _pads_not_passed(recipe, tensors)
    yield from _unpadded(query, book, tensors, memo)


def kernel_findings(
    query: Query,
    book: Book,
    tensors: Mapping[Role, TensorDecision],
    kernels: Sequence[KernelBucket],
    ranges: Sequence[TokenBucket],
) -> Iterator[Finding]:
    """Yield findings on the kernels that will run.

    Args:
        kernels: at the token counts that the query names.
        ranges: at every token count: a layout must be right there, too.
    """
    yield from _errors(kernels)
    yield from _later_kernels(query, book, ranges)
    yield from _reads(book, tensors, ranges)
    yield from _numerics(query, ranges)


def _later_kernels(query: Query, book: Book, ranges: Sequence[TokenBucket]) -> Iterator[Finding]:
    """Yield the first tuned row whose kernels this AITER does not have yet."""
    for bucket in ranges:
        owner = book.families.row_of_later(query.aiter, bucket.choice)
        if owner is not None:
            stage = bucket.choice.stage1
            yield later_kernel_finding(stage.kernel if stage else owner.id, owner, query.aiter)
            return


def later_kernel_finding(kernel: str, owner: Family, aiter: str | None) -> Finding:
    """Return the finding for a kernel that needs a later AITER."""
    return Finding.of(
        "version_unsupported",
        f"{kernel} is of {owner.id}, whose kernels start at AITER {owner.since}; this is {aiter}",
        expected=f"AITER {owner.since} or newer",
        actual=aiter,
        fix=f"take AITER {owner.since} or newer, or rows of this version",
        evidence=owner.evidence,
    )


def _cut_through(query: Query, recipe: Recipe) -> list[Finding]:
    """Return a finding where a recipe cuts through a scale group.

    Two ranks then share a scale, and both lack it.
    """
    group, size = GROUP.get(recipe.call.quant_type, 1), query.intermediate_size
    if recipe.cuts != "values" or size is None or size % query.tp or size // query.tp % group == 0:
        return []
    dividing = ", ".join(str(tp) for tp in range(1, query.tp) if size % tp == 0 and size // tp % group == 0)
    message = (
        f"recipe {recipe.id} slices intermediate_size {size} at tp {query.tp} into {size // query.tp} values, "
        f"through a group of {group} that shares a scale; shapes here are those of whole groups"
    )
    return [Finding.of("scale_shape", message, expected="whole groups per rank", fix=f"use one of tp {dividing}")]


def _not_passed(query: Query, recipe: Recipe) -> list[Finding]:
    """Return findings on arguments that an engine converts and does not pass."""
    findings: list[Finding] = []
    if query.bias and recipe.call.bias == "dropped":
        text = f"recipe {recipe.id}: biases are converted and not passed to the kernel; the model has them"
        wanted = "bias1 and bias2"
        findings.append(Finding.of("contract_mismatch", text, role="w13_bias", expected=wanted, actual="none"))
    if query.router_weight_on_input and recipe.call.router_weight.by == "dropped":
        text = f"recipe {recipe.id}: the router's weight belongs on the input, and the engine leaves it on the output"
        wanted = "doweight_stage1=true"
        findings.append(Finding.of("contract_mismatch", text, expected=wanted, actual="not passed"))
    dispatched = recipe.call.function == DISPATCHED  # others take no gate_mode
    if dispatched and recipe.call.gate_mode == "interleave" and not recipe.call.passes_gate_mode(query.swiglu_limit):
        missing = ": the engine passes it with a clamp only" if recipe.call.gate_mode_passed else ""
        text = f"recipe {recipe.id}: w13 is laid out for gate_mode=interleave, which is not passed{missing}"
        wanted = "gate_mode=interleave"
        findings.append(Finding.of("contract_mismatch", text, expected=wanted, actual="AITER's default"))
    return findings


def _pads_not_passed(recipe: Recipe, tensors: Mapping[Role, TensorDecision]) -> list[Finding]:
    """Return findings on pads that are not passed to the kernel.

    With them the kernel could skip the padding.
    """
    call = recipe.call
    if call.function != DISPATCHED or call.quant_type == "No":
        return []
    roles: tuple[tuple[str, Role, bool], ...] = (
        ("hidden_pad", "w13_weight", call.hidden_pad.passed),
        ("intermediate_pad", "w2_weight", call.intermediate_pad.passed),
    )
    return [
        Finding.of(
            "pad_unreported",
            f"recipe {recipe.id}: {name} is not passed though {pad} of {role} are padding: right, but slower",
            role=role,
            expected=str(pad),
            actual="0",
        )
        for name, role, passed in roles
        if not passed and (pad := tensors[role].pad.k)
    ]


def _unpadded(query: Query, book: Book, tensors: Mapping[Role, TensorDecision], memo: Memo) -> list[Finding]:
    """Return findings on weights whose shape is not whole tiles.

    Scales are padded at their flat tail.
    """
    findings: list[Finding] = []
    for role in ("w13_weight", "w2_weight"):
        tensor = tensors[role]
        layout = book.layout(tensor.layout)
        _, rows, k = tensor.physical_shape
        width = k * tensor.laid_bits // 8 if layout.unit == "byte" else k
        reason = memo.get("unfit", (layout, rows, width), partial(_unfit, layout, rows, width))
        if reason:
            findings.append(Finding.of("pad_required", f"{role} at tp {query.tp}: {reason}", role=role))
    return findings


def _unfit(layout: Layout, rows: int, k: int) -> str:
    """Return why a layout cannot be bound to a shape; empty if it can.

    The number of experts does not matter.
    """
    try:
        layout.bind(1, rows, k)
    except LayoutError as error:
        return str(error)
    return ""


def environment_findings(query: Query, book: Book, recipe: Recipe) -> list[Finding]:
    """Return findings on switches that contradict the recipe's.

    Switches that affect numerics only are judged by the kernels.
    """
    return [
        Finding.of(
            "flag_conflict",
            f"recipe {recipe.id} needs {name}={value}; the environment says {name}={query.env[name]}",
            expected=value,
            actual=query.env[name],
            fix=f"set {name}={value}",
            evidence=book.flags[name].evidence,
        )
        for name, value in recipe.env.items()
        if value_of(book.flags[name], query.env.get(name, value)) != value
        and set(book.flags[name].affects) != {"numerics"}
    ]


def _errors(kernels: Sequence[KernelBucket]) -> list[Finding]:
    """Return findings on token counts for which AITER raises."""
    by_error: dict[str, list[int]] = {}
    for bucket in kernels:
        if bucket.error:
            by_error.setdefault(bucket.error, []).append(bucket.tokens)
    return [
        Finding.of("unsupported", f"AITER raises at {_at(tokens)}: {error}", actual=error)
        for error, tokens in by_error.items()
    ]


def _reads(book: Book, tensors: Mapping[Role, TensorDecision], ranges: Sequence[TokenBucket]) -> list[Finding]:
    """Return findings on kernels that read other bytes than decided.

    Layouts are compared by bytes, not by name.
    """
    misread: dict[tuple[Role, str, str], list[TokenBucket]] = {}
    for bucket in ranges:
        for stage in (bucket.choice.stage1, bucket.choice.stage2):
            for role, layout in (stage.reads if stage else {}).items():
                tensor = tensors.get(role)  # type: ignore[call-overload]
                if (
                    tensor is not None
                    and layout in book.known_layouts
                    and not same_bytes(book, tensor.layout, layout, tensor.physical_shape, tensor.dtype)
                ):
                    misread.setdefault((role, layout, stage.func), []).append(bucket)  # type: ignore[arg-type,union-attr]
    return [
        Finding.of(
            "layout_mismatch",
            f"{role} is {tensors[role].layout}; {func} reads {layout} {where(found)}",
            role=role,
            expected=layout,
            actual=tensors[role].layout,
        )
        for (role, layout, func), found in misread.items()
    ]


def same_bytes(book: Book, first: str, second: str, shape: tuple[int, ...], dtype: TensorDtype | None = None) -> bool:
    """Return whether two layouts give the same bytes on a shape.

    The shape is ``[experts, rows, K]``, K in values of the dtype (in bytes if it is None).
    """
    if first == second:
        return True
    group = "group" in {book.layout(name).unit for name in (first, second) if name in book.known_layouts}
    experts, rows, k = (1, *shape) if group and len(shape) == 2 else (*shape, 1)[:3]
    width = k * BITS[dtype] // 8 if dtype else k
    try:
        left, right = (book.layout(name).bind(experts, rows, width).permutation for name in (first, second))
    except (KeyError, LayoutError):
        return False
    return left == right


def _numerics(query: Query, ranges: Sequence[TokenBucket]) -> list[Finding]:
    """Return a finding on activations in another precision than wanted."""
    wanted = query.activation_dtype
    known = [bucket for bucket in ranges if bucket.choice.activation_dtype is not None]
    if wanted is None or not known:
        return []
    fewer = [bucket for bucket in known if BITS.get(bucket.choice.activation_dtype or "", 99) < BITS[wanted]]
    if fewer:
        runs = ", ".join(sorted({bucket.choice.activation_dtype or "" for bucket in fewer}))
        text = f"activations run in {runs} {where(fewer)}; the checkpoint wants {wanted}"
        return [Finding.of("numerics_deviation", text, expected=wanted, actual=runs)]
    if all(bucket.choice.activation_dtype != wanted for bucket in known):
        runs = ", ".join(sorted({bucket.choice.activation_dtype or "" for bucket in known}))
        text = f"activations run in {runs} at every token count; the checkpoint wants {wanted}"
        return [Finding.of("numerics_deviation", text, expected=wanted, actual=runs)]
    return []


def where(buckets: Iterable[TokenBucket]) -> str:
    """Name token counts as ranges, neighbours as one."""
    ranges = merge_ranges((bucket.lo, bucket.hi) for bucket in buckets)
    return " and ".join(_span(lo, hi) for lo, hi in ranges)


def _span(lo: int, hi: int | None) -> str:
    if hi is None:
        return "at every token count" if lo == 1 else f"from {lo} tokens on"
    if lo == hi:
        return f"at {lo} token{'' if lo == 1 else 's'}"
    return f"up to {hi} tokens" if lo == 1 else f"from {lo} to {hi} tokens"


def _at(tokens: list[int]) -> str:
    return f"{', '.join(map(str, tokens))} tokens"

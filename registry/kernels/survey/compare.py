"""Comparison of kernels between two AITER versions or table sets."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, ValidationError

from preshuffle.registry.base.frozen import Frozen, FrozenDict
from preshuffle.registry.kernels.call import DispatchCall
from preshuffle.registry.kernels.choice import KernelChoice, Stage
from preshuffle.registry.kernels.families.families import Families
from preshuffle.registry.kernels.survey.buckets import TokenBucket, reachable_buckets
from preshuffle.registry.kernels.tables.rows import Row
from preshuffle.registry.kernels.tables.tables import KernelTables

Severity = Literal["layout", "error", "activation", "kernel"]
SEVERITIES: tuple[Severity, ...] = ("layout", "error", "activation", "kernel")
"""Severities of a change, the worst first.

Other bytes are read; only one side raises; other numerics; another kernel.
"""
_WEIGHTS = {
    "torch.bfloat16": "bf16",
    "torch.float16": "fp16",
    "torch.int8": "i8",
    "torch.int4": "i4x2",
    "torch.uint32": "uint32",
    "torch.float4_e2m1fn_x2": "fp4x2",
    "torch.float8_e4m3fn": "fp8",
    "torch.float8_e4m3fnuz": "fp8",
}


class Side(Frozen):
    """One side of a comparison (see ``KernelChoice``).

    ``reads`` are those of both stages.
    """

    activation_dtype: str | None
    stage1: str | None
    stage2: str | None
    reads: FrozenDict[str, str]
    tuned: bool | None
    source: str | None
    error: str | None


class KernelChange(Frozen):
    """A range of token counts at which a call gets another kernel."""

    subject: str = Field(description="the deployment, or the shape, that the call stands for")
    severity: Severity
    lo: int = Field(description="first token count")
    hi: int | None = Field(description="last token count; null: no end")
    before: Side
    after: Side


def changes(
    subject: str,
    call: DispatchCall,
    before: tuple[str | None, KernelTables | None],
    after: tuple[str | None, KernelTables | None],
    upto: int | None = None,
    families: Families | None = None,
) -> Iterator[KernelChange]:
    """Yield the token ranges where two (version, tables) differ.

    Args:
        subject: How the changes call it.
        call: Its tokens and AITER version do not matter.
        before: The one version and its tables.
        after: The other.
        upto: Token counts above it do not count.
        families: By which kernels are mapped to bytes; None for those of the packaged book.
    """
    sides = []
    for aiter, tables in (before, after):
        sides.append(reachable_buckets(call.model_copy(update={"aiter": aiter}), tables, upto, families))
    points = sorted({bucket.lo for side in sides for bucket in side})
    pending: KernelChange | None = None
    for lo, following in pairwise([*points, 0]):
        old, new = (_at(side, lo) for side in sides)
        severity = severity_of(old, new)
        hi = following - 1 if following else None
        if severity is None:
            if pending is not None:
                yield pending
            pending = None
            continue
        change = KernelChange(subject=subject, severity=severity, lo=lo, hi=hi, before=_side(old), after=_side(new))
        if (
            pending is not None
            and pending.severity == severity
            and pending.before == change.before
            and pending.after == change.after
        ):
            pending = pending.model_copy(update={"hi": hi})
            continue
        if pending is not None:
            yield pending
        pending = change
    if pending is not None:
        yield pending


def severity_of(before: KernelChoice, after: KernelChoice) -> Severity | None:
    """Return the severity of the difference between two choices.

    None where the same kernels run on the same numbers.
    """
    if (before.error is None) != (after.error is None):
        return "error"
    if before.error is not None:
        return None
    left, right = _reads(before), _reads(after)
    if any(left[role] != right[role] for role in left.keys() & right.keys()):
        return "layout"
    if before.activation_dtype != after.activation_dtype:
        return "activation"
    return None if _names(before) == _names(after) else "kernel"


def ranked(items: Iterable[KernelChange]) -> list[KernelChange]:
    """Sort changes, the most severe first."""
    return sorted(items, key=lambda change: SEVERITIES.index(change.severity))


def calls_of(rows: Iterable[Row]) -> dict[str, DispatchCall]:
    """Return the calls that rows were tuned for, by description.

    Token counts do not tell calls apart.

    MX weights are called with both gate modes, since the tables do not say which one a row is for. Rows whose values no
    call can have are left out.
    """
    calls: dict[str, DispatchCall] = {}
    for row in rows:
        modes = ("separated", "interleave") if row.q_type == "QuantType.per_1x32" else ("separated",)
        for mode in modes:
            fields: dict[str, Any] = {
                "gfx": row.gfx,
                "cu_num": row.cu_num,
                "tokens": 1,
                "model_dim": row.model_dim,
                "inter_dim": row.inter_dim,
                "expert": row.expert,
                "topk": row.topk,
                "activation": row.act_type.removeprefix("ActivationType."),
                "dtype": "fp16" if row.dtype == "torch.float16" else "bf16",
                "weight_dtype": _WEIGHTS.get(row.q_dtype_w),
                "quant_type": row.q_type.removeprefix("QuantType."),
                "use_g1u1": bool(row.use_g1u1),
                "doweight_stage1": bool(row.doweight_stage1),
                "gate_mode": mode,
            }
            name = _shape_text(fields, len(modes) > 1)
            if name in calls:
                continue
            try:
                calls[name] = DispatchCall.model_validate(fields)
            except ValidationError:
                continue
    return calls


def _shape_text(fields: dict[str, Any], modes: bool) -> str:
    parts = [
        f"{fields['gfx']} {fields['cu_num']} CUs",
        f"{fields['model_dim']}×{fields['inter_dim']}",
        f"{fields['expert']} experts top {fields['topk']}",
        f"{fields['activation']} {fields['weight_dtype']} {fields['quant_type']}",
    ]
    parts += [fields["gate_mode"]] if modes else []
    parts += [] if fields["use_g1u1"] else ["without gate"]
    parts += ["doweight_stage1"] if fields["doweight_stage1"] else []
    parts += ["fp16"] if fields["dtype"] == "fp16" else []
    return ", ".join(parts)


def _at(buckets: list[TokenBucket], tokens: int) -> KernelChoice:
    return next(bucket.choice for bucket in reversed(buckets) if bucket.lo <= tokens)


def _stages(choice: KernelChoice) -> tuple[Stage | None, Stage | None]:
    return choice.stage1, choice.stage2


def _reads(choice: KernelChoice) -> dict[str, str]:
    return {role: layout for stage in _stages(choice) if stage is not None for role, layout in stage.reads.items()}


def _names(choice: KernelChoice) -> tuple[tuple[str | None, str] | None, ...]:
    """Return what identifies the kernels of a choice.

    A version that renamed a function did not change the kernel, so the family stands for the function.
    """
    return tuple((stage.family or stage.func, stage.kernel) if stage else None for stage in _stages(choice))


def _side(choice: KernelChoice) -> Side:
    first, second = (stage and (stage.kernel or stage.func) for stage in _stages(choice))
    return Side(
        activation_dtype=choice.activation_dtype,
        stage1=first,
        stage2=second,
        reads=FrozenDict(_reads(choice)),
        tuned=choice.tuned,
        source=choice.source,
        error=choice.error,
    )

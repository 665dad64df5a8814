"""Rules on kernels: whether they exist, are tuned and precise enough.

Codes: unsupported, version_unsupported, untuned, numerics_deviation, stale_row, ambiguous_key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal

from preshuffle.registry.base.words import BITS
from preshuffle.registry.check.deployment.evidence import Evidence, at
from preshuffle.registry.check.deployment.kernel_runs import KernelRun
from preshuffle.registry.entries import RUN_FACTS
from preshuffle.registry.kernels import GFX_OF_CU_NUM, SHARED_CU_NUM, activation_bound, behaviour_of
from preshuffle.registry.layer import WEIGHTS, MoELayer, dispatch_call, weight_dtype_of
from preshuffle.registry.values.finding import Finding

_NO_KERNEL = ("unsupported", "version_unsupported")
_NO_BOUND = 2**31 - 1
"""Token count that no batch reaches."""
_OTHER = "take another backend (plain bytes for Triton), another quantization, or a GPU that has the kernel"


def unsupported(evidence: Evidence) -> Iterator[Finding]:
    """Yield combinations for which no kernel exists."""
    yield from (finding for finding, _ in _unsupported_runs(evidence))


def _unsupported_runs(evidence: Evidence) -> Iterator[tuple[Finding, Sequence[KernelRun]]]:
    """Yield combinations for which no kernel exists, with the runs that have none."""
    yield from _by_contract(evidence, "unsupported")
    yield from ((finding, evidence.runs) for finding in evidence.layer.faults("unsupported"))
    reported: set[str] = set()
    for run in evidence.runs:
        if run.error is not None and run.error not in reported:
            reported.add(run.error)
            same = [other for other in evidence.runs if other.error == run.error]
            text = f"AITER raises {at(same)}: {run.error}"
            yield Finding.of("unsupported", text, actual=run.error, fix=_OTHER), same
    for name, runs in _for_other_archs(evidence):
        text = f"{runs[0].name} {at(runs)} is of {name}, which does not exist for {evidence.layer.query.arch}"
        yield Finding.of("unsupported", text, actual=name, fix=_OTHER), runs
    yield from ((finding, evidence.runs) for finding in _backend_archs(evidence))


def _for_other_archs(evidence: Evidence) -> Iterator[tuple[str, list[KernelRun]]]:
    by_family: dict[str, list[KernelRun]] = {}
    for run in evidence.runs:
        if run.reader == "aiter" and not evidence.layer.book.families.exist_for(
            evidence.layer.query.arch, run.families
        ):
            by_family.setdefault(run.families[0] or run.families[1], []).append(run)
    covered = {id(run) for entry, runs in evidence.contracts for run in runs if entry.code in _NO_KERNEL}
    for name, runs in by_family.items():
        rest = [run for run in runs if id(run) not in covered]
        if rest:
            yield name, rest


def _backend_archs(evidence: Evidence) -> Iterator[Finding]:
    for name in dict.fromkeys(run.backend_name for run in evidence.runs if run.backend_name):
        entry = evidence.backends.find(name)
        if entry is not None and entry.archs and evidence.layer.query.arch not in entry.archs:
            yield Finding.of(
                "unsupported",
                f"backend {name} does not exist for {evidence.layer.query.arch}; it is for {', '.join(entry.archs)}",
                expected=" or ".join(entry.archs),
                actual=evidence.layer.query.arch,
                fix=_OTHER,
                evidence=entry.evidence,
            )


def _by_contract(
    evidence: Evidence, code: Literal["unsupported", "version_unsupported"]
) -> Iterator[tuple[Finding, Sequence[KernelRun]]]:
    for entry, runs in evidence.contracts:
        if entry.code == code:
            of_runs = any(condition.split()[0] in RUN_FACTS for condition in entry.when)
            name = (runs[0].kernels[0] or runs[0].func1 or runs[0].backend_name) if of_runs else None
            text = f"{entry.says} ({name} {at(runs)})" if name else entry.says
            found = entry.divided(evidence.layer.facts)
            yield Finding.of(code, text, role=entry.role, actual=found, fix=entry.fix, evidence=entry.evidence), runs


def version_unsupported(evidence: Evidence) -> Iterator[Finding]:
    """Yield features that this AITER or engine is too old for."""
    yield from (finding for finding, _ in _by_contract(evidence, "version_unsupported"))
    aiter = evidence.layer.query.aiter
    begins_later = evidence.layer.book.families.begins_later
    named = [run for run in evidence.runs if run.tuned or not run.predicted]
    later = ((run, owner) for run in named if (owner := begins_later(aiter, run.kernels)) is not None)
    for run, owner in islice(later, 1):
        yield Finding.of(
            "version_unsupported",
            f"{run.name} is of {owner.id}, whose kernels start at AITER {owner.since}; this is {aiter}",
            expected=f"AITER {owner.since} or newer",
            actual=aiter,
            fix=f"take AITER {owner.since} or newer, or rows of this version",
            evidence=owner.evidence,
        )


def untuned(evidence: Evidence) -> Iterator[Finding]:
    """Yield a shape that no row of the kernel tables covers."""
    yield from _untuned(evidence, evidence.runs)


def without_untuned_beside(evidence: Evidence, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return findings, without ``untuned`` at token counts that are unsupported.

    Nothing runs there, tuned or not. Only findings that are reported count: where ``unsupported`` is not among them, a
    lone ``untuned`` stays.

    Args:
        evidence: of the most plausible call, from which the findings are.
        findings: all that are reported.
    """
    if not {"untuned", "unsupported"} <= {finding.code for finding in findings}:
        return tuple(findings)
    reported = [finding for finding in findings if finding.code == "unsupported"]
    without = {id(run) for finding, runs in _unsupported_runs(evidence) if finding in reported for run in runs}
    if not without:
        return tuple(findings)
    left = iter(_untuned(evidence, [run for run in evidence.runs if id(run) not in without]))
    kept = (next(left, None) if finding.code == "untuned" else finding for finding in findings)
    return tuple(finding for finding in kept if finding is not None)


def _untuned(evidence: Evidence, candidates: Sequence[KernelRun]) -> Iterator[Finding]:
    runs = [run for run in candidates if run.predicted and run.tuned is False]
    if evidence.tables is not None and runs and evidence.call is not None and _shape_known(evidence.layer):
        hidden, inter = evidence.call.sizes
        then = "a heuristic kernel runs" if any(run.error is None for run in runs) else "and no heuristic has a kernel"
        yield Finding.of(
            "untuned",
            f"no row of the kernel tables covers ({hidden}, {inter}, {evidence.call.experts} experts, top "
            f"{evidence.call.top_k}) on {evidence.call.cu_num} compute units {at(runs)}: {then}",
            fix="tune the shape with AITER's gemm_moe_tune.py and load its rows",
            evidence=("https://github.com/ROCm/aiter/issues/3852",),
        )


def _shape_known(layer: MoELayer) -> bool:
    """Return whether a rank's sizes are known.

    They were observed, or follow from an observed tp and ep; a default says nothing.
    """
    shapes = [tensor.observation for role in WEIGHTS if (tensor := layer.tensors.get(role)) is not None]
    shaped = any(what.physical_shape or what.logical_shape for what in shapes)
    return shaped or {"tp", "ep"} <= layer.stated


def numerics_deviation(evidence: Evidence) -> Iterator[Finding]:
    """Yield weights and activations of another precision than the query wants."""
    yield from _other_weights(evidence.layer)
    wanted = evidence.layer.query.activation_dtype
    known = [run for run in evidence.runs if run.runs_in is not None and run.error is None and not run.blocked]
    if wanted is None or not known:
        return
    fewer = [run for run in known if BITS.get(run.runs_in or "", 99) < BITS[wanted]]
    other = all(BITS.get(run.runs_in or "", 0) != BITS[wanted] for run in known)
    if not fewer and not other:
        return
    runs = fewer or known
    dtypes = ", ".join(sorted({run.runs_in or "" for run in runs}))
    yield Finding.of(
        "numerics_deviation",
        f"activations run in {dtypes} {at(runs)}; the checkpoint wants {wanted}",
        expected=wanted,
        actual=dtypes,
        fix=_how_to_run(evidence, wanted),
    )


def _how_to_run(evidence: Evidence, wanted: str) -> str:
    """Say which variable makes AITER run activations in a dtype; where none does, what else may."""
    rule = None
    if evidence.call is not None and "aiter" in evidence.readers():
        call = dispatch_call(evidence.layer, evidence.call, 1)
        rule = activation_bound(call, evidence.layer.book.families)
    if rule is not None and wanted in (rule.below, rule.dtype):
        return f"set {rule.bound}={_NO_BOUND if wanted == rule.below else 0}, or accept the other numerics knowingly"
    return f"take a gate_mode, or a switch of the engine, that runs {wanted}, or accept the other numerics knowingly"


def _other_weights(layer: MoELayer) -> Iterator[Finding]:
    stated, loaded = layer.requested.weight_dtype, weight_dtype_of(layer.applied)
    packed = loaded == "i8" and stated == "i4x2"
    if stated is not None and loaded is not None and loaded != stated and not packed:
        yield Finding.of(
            "numerics_deviation",
            f"the weights are {loaded}; the query says {stated}",
            expected=stated,
            actual=loaded,
            fix="load the checkpoint that the query names, or state what the engine requantizes its weights to",
        )


def _nearest_family(evidence: Evidence, name: str) -> str:
    """Name the family whose names begin like an unknown one."""
    families = [id for id in evidence.layer.book.families.by_id if name.startswith(id)]
    return f" (it begins like those of family {max(families, key=len)})" if families else ""


def stale_row(evidence: Evidence) -> Iterator[Finding]:
    """Yield kernel names that no known family has."""
    for name in dict.fromkeys(name for run in evidence.runs for name in run.unknown_names):
        yield Finding.of(
            "stale_row",
            f"{name!r} is no known kernel name{_nearest_family(evidence, name)}: AITER ignores such a row and takes a "
            "heuristic kernel",
            actual=name,
            fix="retune the row, or rename it as this AITER names the kernel",
            evidence=("https://github.com/ROCm/aiter/pull/5069",),
        )


def ambiguous_key(evidence: Evidence) -> Iterator[Finding]:
    """Yield table keys that also answer for another GPU."""
    if evidence.call is None or "aiter" not in evidence.readers():
        return
    cu_num, arch = evidence.call.cu_num, evidence.layer.query.arch
    meant = GFX_OF_CU_NUM.get(cu_num)
    if evidence.layer.query.aiter is None or behaviour_of(evidence.layer.query.aiter).data.key_has_gfx:
        return
    if arch in SHARED_CU_NUM.get(cu_num, ()) and arch != meant:
        yield Finding.of(
            "ambiguous_key",
            f"this AITER's tables are keyed by compute units alone, and {meant} has {cu_num} like {arch}: rows tuned "
            f"for {meant} answer here",
            expected=f"rows for {arch}",
            actual=f"rows for {cu_num} compute units",
            fix="take AITER 0.1.16 or newer, whose key has the gfx name",
            evidence=("https://github.com/ROCm/aiter/pull/3703",),
        )

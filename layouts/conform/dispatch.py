"""Predicted kernels against AITER's own dispatch."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from preshuffle.layouts.conform.aiter_source import AiterSource
from preshuffle.layouts.conform.child import run_worker
from preshuffle.layouts.conform.claim_log import ClaimLog
from preshuffle.layouts.conform.dispatch_calls import CallMaker, sample
from preshuffle.layouts.conform.errors import ConformError
from preshuffle.layouts.conform.table_files import load_tables, write_grouped, write_merged
from preshuffle.registry.kernels import (
    DispatchCall,
    Families,
    KernelChoice,
    KernelTables,
    RuntimeFacts,
    TableError,
    behaviour_of,
    dispatch,
)
from preshuffle.registry.layer import probe_sources
from preshuffle.registry.loading import Book

TIMEOUT_S: Final = 600.0
ENTRIES: Final = {
    "activation_dtype": "activation_rules",
    "padded_tokens": "padding",
    "stage1": "stage_rules",
    "stage2": "stage_rules",
    "block_m": "block_m_per_1x128",
    "ksplit": "ksplit_quant_types",
    "run_1stage": "one_stage_run",
    "source": "act_type",
    "error": "features",
}
"""Field of the dispatch book that decides each part of a choice, the first that differs counts."""
_ORDER: Final = ("padded_tokens", "activation_dtype", "source", "run_1stage", "stage1", "stage2", "ksplit", "block_m")


def check_dispatch(
    source: AiterSource,
    version: str,
    book: Book,
    count: int | None = None,
    progress: Callable[[int, int], None] = lambda done, all: None,
) -> ClaimLog:
    """Ask AITER's ``fused_moe`` for kernels, and compare them with the prediction.

    Args:
        source: of which AITER.
        version: as which it is predicted.
        book: whose kernel families.
        count: calls to make, evenly spread over the grid; None for all.
        progress: called with calls done and all calls.
    """
    log = ClaimLog()
    try:
        tables = load_tables(source, version)
    except TableError as error:
        log.not_run("every kernel choice", f"the tuned tables cannot be read: {error}")
        return log
    tables = tables or KernelTables.from_bytes({}, aiter=version)
    features = [name for name, seen in probe_sources(book, source.package).items() if seen]
    calls = sample(CallMaker(version, book, features).all_calls(tables), count)
    try:
        answers = _ask(source, tables, calls, lambda done: progress(done, len(calls)))
    except ConformError as error:
        log.not_run("every kernel choice", str(error))
        return log
    _compare(log, source, calls, answers, tables, book.families)
    _note_lines(log, source, answers, whole=count is None)
    for text in behaviour_of(version).notes:
        log.note(text)
    return log


def _ask(
    source: AiterSource, tables: KernelTables, calls: Sequence[DispatchCall], progress: Callable[[int], None]
) -> list[dict[str, Any]]:
    gpus: dict[tuple[str, int], list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for number, call in enumerate(calls):
        gpus[call.gfx, call.cu_num].append((number, call.model_dump(mode="json", exclude={"aiter"})))
    with tempfile.TemporaryDirectory(prefix="preshuffle-tables-") as folder:
        merged, grouped = Path(folder) / "tuned_fmoe.csv", Path(folder) / "tuned_grouped_fmoe.csv"
        write_merged(source, tables, merged)
        write_grouped(source, grouped)
        request = {
            "root": str(source.root),
            "package": str(source.package),
            "table": str(merged),
            "grouped": str(grouped),
            "groups": [{"gfx": gfx, "cu_num": cu, "calls": asked} for (gfx, cu), asked in gpus.items()],
        }
        return run_worker("dispatch_worker", request, timeout_s=TIMEOUT_S, progress=progress)


def _compare(
    log: ClaimLog,
    source: AiterSource,
    calls: Sequence[DispatchCall],
    answers: Sequence[dict[str, Any]],
    tables: KernelTables,
    families: Families,
) -> None:
    answered = {answer["number"]: answer for answer in answers if "number" in answer}
    for failed in (answer for answer in answers if "failed" in answer):
        log.not_run(f"kernel choices on {failed.get('gfx', 'some GPUs')}", failed["failed"])
    if len(answered) < len(calls):
        log.not_run(f"{len(calls) - len(answered):,} of {len(calls):,} kernel choices", "AITER's code gave no answer")
    for number, call in enumerate(calls):
        if number not in answered:
            continue
        choice, outcome = dispatch(call, tables, families), answered[number]["outcome"]
        differs = _differences(choice, outcome, call, families)
        if not differs:
            log.agree()
            continue
        field, here, there = differs[0]
        line = answered[number].get("line")
        place = f"{source.relative(source.package / 'fused_moe.py')}:{line}" if line else outcome.get("source")
        entry = _entry(call, choice, field)
        log.disagree(entry, _describe(call), f"{field}: {here}", f"{field}: {there}", place)


def _differences(
    choice: KernelChoice, outcome: dict[str, Any], call: DispatchCall, families: Families
) -> list[tuple[str, Any, Any]]:
    """Return the fields in which prediction and answer differ, the most telling first."""
    error = choice.error.partition(":")[0] if choice.error else None
    if error != outcome["error"]:
        return [("error", choice.error or "none", f"{outcome['error']} {outcome.get('message', '')}".strip())]
    if error is not None:
        return []
    predicted = {
        **{name: getattr(choice, name) for name in ("activation_dtype", "padded_tokens", "block_m", "ksplit")},
        **{"run_1stage": choice.run_1stage, "source": choice.source},
        "stage1": [choice.stage1.func, choice.stage1.kernel] if choice.stage1 else None,
        "stage2": [choice.stage2.func, choice.stage2.kernel] if choice.stage2 else None,
    }
    found = [(name, predicted[name], outcome[name]) for name in _ORDER if predicted[name] != outcome[name]]
    found = [item for item in found if not _same_family(*item, families)]
    reads = _reads(outcome, call, families)
    told = {role: layout for stage in (choice.stage1, choice.stage2) if stage for role, layout in stage.reads.items()}
    if not found and reads != told:
        found.append(("reads", told, reads))
    return found


def _same_family(name: str, here: Any, there: Any, families: Families) -> bool:
    """Return whether two stages run one kernel, by functions that a family knows by several names."""
    if name not in ("stage1", "stage2") or here is None or there is None or here[1] != there[1]:
        return False
    return any({here[0], there[0]} <= set(family.funcs) for family in families)


def _reads(outcome: dict[str, Any], call: DispatchCall, families: Families) -> dict[str, str]:
    """Return what the chosen kernels read by the arguments that AITER itself bound."""
    split, layout = outcome["arguments"].get("split_k"), outcome["arguments"].get("post_activation_layout", "")
    cktile = outcome["stage1"][0] == "cktile_moe_stage1"
    # Before gate_mode no argument says how split-k's columns are read; Swiglu had interleaved weights only.
    told = "gate_mode" in behaviour_of(call.aiter).data.features or call.activation == "Swiglu"
    default = "auto" if cktile and told else ""
    facts = RuntimeFacts(
        outcome["activation_dtype"],
        call.weight_dtype,
        "per_1x128" if call.quant_type == "per_128x128" else call.quant_type,
        call.gate_mode,
        "true" if call.is_shuffled else "false",
        "" if split is None and not cktile else "1" if split in (None, 1) else "n",
        layout or default,
        activation=call.activation,
    )
    func1, kernel1 = outcome["stage1"]
    func2, kernel2 = outcome["stage2"] or (None, "")
    stage1, stage2, _ = families.stages_of(func1, kernel1, func2, kernel2, facts)
    return {role: layout for stage in (stage1, stage2) if stage for role, layout in stage.reads.items()}


def _entry(call: DispatchCall, choice: KernelChoice, field: str) -> str:
    if field == "reads":
        family = choice.stage1.family if choice.stage1 else None
        return f"kernel_families.{family}.variants"
    return f"aiter_dispatch.timeline[{behaviour_of(call.aiter).key}].{ENTRIES[field]}"


def _describe(call: DispatchCall) -> str:
    stated = call.model_dump(mode="json", exclude_defaults=True, exclude={"aiter"})
    return ", ".join(f"{name}={value}" for name, value in stated.items())


def _note_lines(log: ClaimLog, source: AiterSource, answers: Sequence[dict[str, Any]], whole: bool) -> None:
    """Tell which lines of AITER's decision no call reached."""
    told = [answer for answer in answers if "lines" in answer]
    if not told:
        return
    reached = {line for answer in told for line in answer["reached"]}
    missed = sorted(set(told[0]["lines"]) - reached)
    log.note(f"{len(told[0]['lines']) - len(missed)} of {len(told[0]['lines'])} lines of get_2stage_cfgs reached")
    if not whole:
        return
    name = source.relative(source.package / "fused_moe.py")
    for _, group in groupby(enumerate(missed), lambda pair: pair[1] - pair[0]):
        lines = [line for _, line in group]
        span = f"{lines[0]}-{lines[-1]}" if len(lines) > 1 else str(lines[0])
        log.not_run(f"{name}:{span}", "no call of the grid reaches these lines")

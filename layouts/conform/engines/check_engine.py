"""An engine's own weight conversions against the book, counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from preshuffle.layouts.conform.aiter_source import AiterSource
from preshuffle.layouts.conform.child import run_worker
from preshuffle.layouts.conform.claim_log import ClaimLog
from preshuffle.layouts.conform.engines.engine_cases import EngineCase, engine_cases
from preshuffle.layouts.conform.engines.engine_source import EngineSource, MissingEngine
from preshuffle.layouts.conform.errors import ConformError
from preshuffle.registry import Registry
from preshuffle.registry.base.versions import version_key
from preshuffle.registry.entries import EngineEntry

TIMEOUT_S: Final = 1200.0
Answer = dict[str, Any]
WHAT: Final = "its own conversions of small layers"
AGREE: Final = frozenset({"equal", "equal, other kernels", "refused, other kernels", "both refuse"})
"""Outcomes that agree. Other kernels than AITER's, and a refusal by both, are what the book says of those layers."""
UNKNOWN: Final = frozenset({"raises", "not driven"})
"""Outcomes that contradict nothing: what the engine would have done is not seen."""
_NOT_OURS: Final = ("engine", "aiter")
"""Whose a known fault is where the book is right."""


@dataclass
class EngineJudge:
    """Judge of outcomes; known faults and errors are counted by their text.

    Attributes:
        known: layers with a fault that is known.
        gone: layers that no longer show one.
        raised: names of layers on which the engine raised.
    """

    log: ClaimLog
    title: str
    known: Counter[str] = field(default_factory=Counter)
    gone: Counter[str] = field(default_factory=Counter)
    raised: dict[str, list[str]] = field(default_factory=dict)

    def judge(self, case: EngineCase, answer: Answer) -> None:
        """Count a case."""
        outcome, found = answer["outcome"], answer.get("differences") or {}
        pinned = case.fault.partition(":")[0] in _NOT_OURS and case.expect not in AGREE
        if outcome in AGREE:
            self.log.agree()
            if pinned and outcome == "equal":
                self.gone[case.fault] += 1
        elif pinned and outcome == case.expect and found.keys() <= {*case.differs}:
            self.log.agree()
            self.known[case.fault] += 1
        elif outcome in UNKNOWN:
            how = "raises" if outcome == "raises" else "is not as its driver knows it:"
            self.raised.setdefault(f"{self.title} {how} {answer['raised']}", []).append(case.name)
        else:
            here, there = _sides(outcome, answer, found)
            self.log.disagree(_entry(answer), case.name, here, there, answer.get("source"))

    def sum_up(self) -> None:
        """Note known faults, and what could not be compared."""
        for error, names in self.raised.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            self.log.not_run(f"{names[0]}{more}", error)
        for fault, count in self.known.items():
            self.log.note(f"known fault, {_layers(count)}: {fault}")
        for fault, count in self.gone.items():
            self.log.note(f"known fault that was not seen, {_layers(count)}: {fault}")


def _layers(count: int) -> str:
    return f"{count} layer" if count == 1 else f"{count} layers"


def _entry(answer: Answer) -> str:
    return f"recipes.{answer['recipe']}" if answer.get("recipe") else "rules"


def _sides(outcome: str, answer: Answer, found: dict[str, Any]) -> tuple[str, str]:
    """Return what the book says and what the engine does."""
    if found:
        here, there = ("; ".join(f"{name}: {sides[number]}" for name, sides in found.items()) for number in (0, 1))
        return here, there
    if outcome == "other kernels":
        return "AITER's fused_moe is called", "other kernels run"
    does = "calls AITER's fused_moe" if outcome == "refused" else "converts it"
    return f"{'apply' if outcome == 'apply refuses' else 'resolve'} refuses: {answer['refusal']}", does


def check_engine(
    engine: EngineSource | MissingEngine,
    source: AiterSource,
    aiter: str,
    registry: Registry,
    layers: Collection[str] | None = None,
    overlays: tuple[str, ...] = (),
    progress: Callable[[int, int], None] = lambda done, all: None,
) -> ClaimLog:
    """Run an engine's conversions on small layers and compare.

    Args:
        engine: which one.
        source: the AITER that the engine gets.
        aiter: its version, or the supposed one.
        registry: whose decisions.
        layers: rows of ``layers.yaml``; all by default.
        overlays: folders that the child loads its book with, too.
        progress: called with cases done and all cases.
    """
    log = ClaimLog()
    if isinstance(engine, MissingEngine):
        log.not_run(f"{engine.name}: {WHAT}", engine.why)
        return log
    cases = [case for case in engine_cases(engine.table) if layers is None or case.layer in layers]
    version = engine.version or registry.book.engines[engine.table.name].newest
    _note_version(log, engine, registry.book.engines[engine.table.name])
    try:
        answers = run_layers(engine, version, source, aiter, cases, overlays, progress)
    except ConformError as error:
        log.not_run(f"{engine.name}: {WHAT}", str(error))
        return log
    judge = EngineJudge(log, engine.table.title)
    unanswered: Counter[tuple[str, str]] = Counter()
    for case, answer in zip(cases, answers, strict=True):
        if "unprepared" in answer:
            unanswered[case.arch, answer["unprepared"]] += 1
        else:
            judge.judge(case, answer)
    for (arch, why), count in unanswered.items():
        log.not_run(f"{engine.name}: {_layers(count)} on {arch}", why)
    judge.sum_up()
    return log


def run_layers(
    engine: EngineSource,
    version: str,
    source: AiterSource,
    aiter: str,
    cases: Sequence[EngineCase],
    overlays: tuple[str, ...] = (),
    progress: Callable[[int, int], None] = lambda done, all: None,
) -> list[Answer]:
    """Run cases in a child process and return an answer for each.

    Args:
        engine: whose code.
        version: of the engine, for the queries.
        source: the AITER that the engine gets.
        aiter: its version, for the queries.
        cases: of that engine.
        overlays: folders that the child loads its book with, too.
        progress: called with cases done and all cases.

    Raises:
        ConformError: the child process ended without an answer.
    """
    request = {
        **{"root": str(source.root), "package": str(source.package), "aiter": aiter, "overlays": list(overlays)},
        **{"engine": f"{engine.table.name}@{version}", "engine_root": str(engine.root)},
        "cases": [asdict(case) for case in cases],
    }
    answers = run_worker(
        "engine_worker", request, timeout_s=TIMEOUT_S, progress=lambda done: progress(done, len(cases))
    )
    found: dict[int, Answer] = {}
    for answer in answers:
        for number in answer.get("cases", ()):
            found.setdefault(number, {"unprepared": answer["unprepared"]})
        if "number" in answer:
            found[answer["number"]] = _without_root(answer, engine)
    stopped = next((answer["failed"] for answer in answers if "failed" in answer), "no answer")
    return [found.get(number, {"unprepared": stopped}) for number in range(len(cases))]


def _note_version(log: ClaimLog, engine: EngineSource, entry: EngineEntry) -> None:
    """Note which version the book and the known faults are about."""
    title, version = engine.table.title, engine.version
    if version is None:
        log.note(f"{title}'s sources state no version; they were compared as {entry.newest}")
        return
    if not version_key(entry.first) <= version_key(version) <= version_key(entry.newest):
        log.note(f"the book knows {title} {entry.first} to {entry.newest}; {version} is answered as the nearest")
    if version_key(version) != version_key(engine.table.release):
        log.note(f"the known faults of {title} are those of {engine.table.release}; this is {version}")


def _without_root(answer: Answer, engine: EngineSource) -> Answer:
    """Return an answer whose paths are relative to the engine's folder."""
    value: Answer = json.loads(json.dumps(answer).replace(f"{engine.root}/", ""))
    return value

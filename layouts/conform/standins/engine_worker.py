"""Child process: an engine's own conversion of small layers, compared.

A fork runs the cases of one architecture and environment: engines read both once, when they are imported.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import torch

from preshuffle.layouts.conform.engines.drivers import comparison, loading, recorded_aiter
from preshuffle.layouts.conform.engines.drivers.pretended_rocm import COMPUTE_UNITS, pretend_rocm
from preshuffle.layouts.conform.engines.drivers.random_experts import RandomExperts
from preshuffle.layouts.conform.engines.engine_cases import EngineCase
from preshuffle.layouts.conform.engines.engine_table import EngineTable, engine_table
from preshuffle.layouts.conform.standins.anything import install_standins, installed
from preshuffle.layouts.conform.standins.requests import AnswerFile, read_request
from preshuffle.registry import Decision, PreshuffleError, Query, Registry

_DRIVERS: Final = "preshuffle.layouts.conform.engines.drivers"
_LONGEST: Final = 400


@dataclass(frozen=True, slots=True)
class EngineRun:
    """What an engine did with a layer.

    Attributes:
        layer: converted; None where that raised.
        call: the arguments of AITER's ``fused_moe``; None where it was not called.
        raised: the error.
        driven: false where the error is an import's, or our driver's: nothing is seen of the engine then.
        source: ``file:line`` of the conversion.
    """

    layer: Any
    call: dict[str, Any] | None
    raised: str | None
    driven: bool
    source: str | None


def query_of(case: EngineCase, engine: str, aiter: str) -> Query:
    """Return the query for a case."""
    query: dict[str, Any] = {
        "model": case.model,
        "arch": case.arch,
        "engine": engine,
        "aiter": aiter,
        "hidden_size": case.hidden,
        "intermediate_size": case.intermediate,
        "num_experts": case.experts,
        "top_k": case.top_k,
        "tp": case.tp,
        "ep": case.ep,
        "env": {**case.env, **case.flags},
        "tokens": [16],
        **case.query,
    }
    return Query.parse(query)


def compare_case(registry: Registry, driver: Any, table: EngineTable, case: EngineCase, query: Query) -> dict[str, Any]:
    """Run one case; errors are outcomes, too."""
    experts = RandomExperts(case.form, case.experts, case.hidden, case.intermediate, bias=case.bias, static=case.static)
    run = run_engine(driver, table, case, experts)
    answer: dict[str, Any] = {"source": run.source, "raised": run.raised}
    if not run.driven:
        return {**answer, "outcome": "not driven"}
    try:
        decision = registry.resolve(query)
    except PreshuffleError as error:
        outcome = "both refuse" if run.raised else "refused" if run.call else "refused, other kernels"
        return {**answer, "outcome": outcome, "refusal": _text(error)}
    answer["recipe"] = decision.recipe
    if run.call is None and (run.raised or decision.call.backend == "aiter"):
        return {**answer, "outcome": "raises" if run.raised else "other kernels"}
    try:
        found = _differences(run, decision, experts, case)
    except Exception as error:
        return {**answer, "outcome": "apply refuses", "refusal": f"{type(error).__name__}: {_text(error)}"}
    outcome = comparison.outcome_of(found)
    if run.call is None and outcome == "equal":
        outcome = "equal, other kernels"
    return {**answer, "outcome": outcome, "differences": found}


def _differences(run: EngineRun, decision: Decision, experts: RandomExperts, case: EngineCase) -> comparison.Found:
    plain = experts.plain(decision, case.rank, case.ep_rank)
    if run.call is None:
        return comparison.compare_layer(run.layer, decision, plain, case.options.get("names", {}))
    return comparison.compare(comparison.scalar_arguments(run.call), decision, plain)


def run_engine(driver: Any, table: EngineTable, case: EngineCase, experts: RandomExperts) -> EngineRun:
    """Create, load, convert and call a layer."""
    recorded_aiter.calls.clear()
    layer, raised, driven, source = None, None, True, None
    try:
        with driver.running(case):
            created = driver.create(case)
            driver.load(created, experts, case)
            source = _place_of(type(created.quant_method).process_weights_after_loading)
            driver.convert(created, case)
            layer = created
            if case.options.get("call", True):
                driver.call(layer, case)
    except Exception as error:
        if not (layer is not None and isinstance(error, NotImplementedError) and table.own_kernels in str(error)):
            ours = {Path(str(module.__file__)) for module in (driver, loading)}
            driven = not isinstance(error, ImportError) and _last_frame(error)[0] not in ours
            raised = _raised(error)
    call = recorded_aiter.calls[-1] if recorded_aiter.calls and raised is None else None
    return EngineRun(layer, call, raised, driven, source)


def _place_of(function: Any) -> str | None:
    """Return ``file:line`` of a function."""
    with suppress(TypeError, OSError):
        function = inspect.unwrap(function)
        return f"{inspect.getsourcefile(function)}:{function.__code__.co_firstlineno}"
    return None


def _last_frame(error: BaseException) -> tuple[Path, int]:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last.filename), last.lineno or 0


def _raised(error: BaseException) -> str:
    file, line = _last_frame(error)
    return f"{type(error).__name__}: {_text(error)} ({file.name}:{line})"


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:_LONGEST]


def prepare(table: EngineTable, request: dict[str, Any], arch: str) -> Any:
    """Make an engine importable and return its driver.

    Raises:
        ImportError: a module that no stand-in replaces is not here, or the engine has none of what the driver uses.
    """
    if missing := [name for name in table.needs if not installed(name)]:
        raise ImportError(f"{table.title} needs {', '.join(missing)} beside it, which no stand-in replaces")
    torch.set_deterministic_debug_mode("warn")  # fills what torch.empty leaves uninitialized
    pretend_rocm(arch)
    recorded_aiter.install_recorded_aiter(Path(request["root"]), Path(request["package"]), arch, COMPUTE_UNITS[arch])
    sys.path.insert(0, request["engine_root"])
    install_standins(table.absent, table.replaced)
    driver = importlib.import_module(f"{_DRIVERS}.{table.name}")
    driver.prepare(arch)
    return driver


def _run_group(
    answers: AnswerFile, registry: Registry, request: dict[str, Any], cases: Sequence[tuple[int, EngineCase]]
) -> None:
    """Run the cases of one architecture and environment."""
    first = cases[0][1]
    os.environ.update(first.env)
    table = engine_table(first.engine)
    numbers = [number for number, _ in cases]
    try:
        driver = prepare(table, request, first.arch)
    except Exception as error:  # whatever foreign modules raise when they are imported
        answers.write(cases=numbers, unprepared=_raised(error))
        return
    for number, case in cases:
        query = query_of(case, request["engine"], request["aiter"])
        answers.write(number=number, **compare_case(registry, driver, table, case, query))


def _groups(cases: Sequence[EngineCase]) -> Iterator[list[tuple[int, EngineCase]]]:
    def key(item: tuple[int, EngineCase]) -> tuple[str, list[tuple[str, str]]]:
        return item[1].arch, sorted(item[1].env.items())

    for _, group in groupby(sorted(enumerate(cases), key=key), key=key):
        yield list(group)


def main(path: str) -> None:
    """Run all cases of a request, a fork for each group."""
    request = read_request(path)
    warnings.simplefilter("ignore")
    default = Registry.default()  # loaded before the forks: ``apply`` asks it for names
    registry = Registry.load(overlays=request["overlays"]) if request["overlays"] else default
    answers = AnswerFile(request["answers"])
    for group in _groups([EngineCase(**row) for row in request["cases"]]):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _run_group(answers, registry, request, group)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        if status:
            ended = f"the child process ended with code {os.waitstatus_to_exitcode(status)}"
            answers.write(cases=[number for number, _ in group], unprepared=ended)


if __name__ == "__main__":
    main(sys.argv[1])

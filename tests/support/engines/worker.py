"""Child process: run an engine's conversion of some layers and compare.

`python -m support.engines.worker CASES RESULTS`: both files are JSON; one engine, one architecture, one environment.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from preshuffle.registry import Decision, PreshuffleError, Query, Registry
from support.engines import aiter_standin
from support.engines.cases import Case
from support.engines.checkpoint import Checkpoint
from support.engines.comparison import compare, compare_layer, scalar_arguments
from support.engines.standins import COMPUTE_UNITS, pretend_rocm
from support.engines.trees import RELEASES, ROOT, tree_of


@dataclass
class Result:
    """What came of a case."""

    name: str
    outcome: str
    details: list[str]
    recipe: str = ""
    differences: list[str] = field(default_factory=list)


def decide(registry: Registry, case: Case) -> Decision:
    """Return the product's decision for a case."""
    query: dict[str, Any] = {
        "model": case.model,
        "arch": case.arch,
        "engine": f"{case.engine}@{RELEASES[case.engine]}",
        "aiter": RELEASES["aiter"],
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
    return registry.resolve(Query.parse(query))


def run_case(registry: Registry, engine: Any, case: Case) -> Result:
    """Run one case; what the engine or the product raises is an outcome too."""
    checkpoint = Checkpoint(case.form, case.experts, case.hidden, case.intermediate, bias=case.bias, static=case.static)
    call, raised = run_engine(engine, case, checkpoint)
    try:
        decision = decide(registry, case)
    except PreshuffleError as error:
        outcome = "both refuse" if raised else "refused" if call else "refused, other kernels"
        return Result(case.name, outcome, [*filter(None, [raised]), str(error)[:400]])
    codes: list[str] = sorted({finding.code for finding in decision.findings if finding.severity == "error"})
    if call is None and (raised or decision.call.backend == "aiter"):
        return Result(case.name, "raises" if raised else "other kernels", [raised or "", *codes], decision.recipe)
    try:
        plain = checkpoint.plain(decision, case.rank, case.ep_rank)
        if call is None:
            found = compare_layer(engine.layers[-1], decision, plain, case.options.get("names", {}))
        else:
            found = compare(scalar_arguments(call), decision, plain)
    except Exception as error:
        return Result(case.name, "apply refuses", [f"{type(error).__name__}: {str(error)[:300]}"], decision.recipe)
    details = [*found.differences, *found.ranks, *codes]
    outcome = "equal, other kernels" if call is None and found.outcome == "equal" else found.outcome
    return Result(case.name, outcome, details, decision.recipe, found.differences)


def run_engine(engine: Any, case: Case, checkpoint: Checkpoint) -> tuple[dict[str, Any] | None, str | None]:
    """Return the engine's call of `fused_moe`, None where it makes none, and what the engine raised."""
    aiter_standin.calls.clear()
    try:
        engine.run(case, checkpoint)
    except Exception as error:
        if isinstance(error, NotImplementedError) and "fused_experts" in str(error):
            return None, None  # the engine's own Triton kernels, which no CPU runs
        last = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {str(error)[:300]} ({Path(last.filename).name}:{last.lineno})"
        return None, text
    return (aiter_standin.calls[-1] if aiter_standin.calls else None), None


def main(cases: Path, results: Path) -> None:
    """Run all cases of a file."""
    warnings.simplefilter("ignore")
    todo = [Case(**row) for row in json.loads(cases.read_text())]
    name, arch = todo[0].engine, todo[0].arch
    sys.path.append(str(ROOT / "dependencies"))
    registry = Registry.load()
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills what torch.empty leaves uninitialized
    pretend_rocm(arch)
    aiter, tree = tree_of("aiter"), tree_of(name)
    assert aiter is not None
    assert tree is not None
    aiter_standin.install_aiter(aiter, arch, COMPUTE_UNITS[arch])
    engine = importlib.import_module(f"support.engines.{name}_engine")
    engine.prepare(tree, arch)
    results.write_text(json.dumps([asdict(run_case(registry, engine, case)) for case in todo]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

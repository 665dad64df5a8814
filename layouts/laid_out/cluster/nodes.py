"""Check of a cluster's nodes before they get work."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from preshuffle.layouts.laid_out.cluster import shipped
from preshuffle.layouts.laid_out.cluster.shipped import Expectation, ProgressBoard, check_node
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.manifest import WORK
from preshuffle.layouts.laid_out.files.tensor_writer import write_whole
from preshuffle.registry import Registry

_PROBE: Final = "node-check"
_SECONDS: Final = 180.0
"""For which nodes may take to start a process and load the book."""


def expectation(out: Path, shards: Iterable[Path]) -> Expectation:
    """Return what nodes must have; write what they must see.

    Raises:
        LaidOutError: the file cannot be written.
    """
    content = secrets.token_hex(16)
    probe = out / WORK / _PROBE
    write_whole(probe, content.encode())
    sizes = tuple((str(path), path.stat().st_size) for path in sorted(shards))
    return Expectation(version("preshuffle"), Registry.default().digest, str(probe), content, sizes)


def check_nodes(ray: Any, expected: Expectation) -> None:
    """Check every node that has processors.

    Raises:
        LaidOutError: names the nodes that differ from this machine, or do not answer.
    """
    checks = {_submit(ray, node, expected): node for node in _usable(ray)}
    done, late = ray.wait(list(checks), num_returns=len(checks), timeout=_SECONDS) if checks else ([], [])
    problems = {checks[ref]["NodeID"]: [f"does not answer within {_SECONDS:.0f} s"] for ref in late}
    problems |= {checks[ref]["NodeID"]: _problems(ray, ref, checks[ref], expected) for ref in done}
    usable = _usable(ray)  # without nodes that died meanwhile
    if not usable:
        raise LaidOutError("the Ray cluster has no node with a processor for tasks")
    wrong = [f"node {_name(node)}: {text}" for node in usable for text in problems.get(node["NodeID"], ())]
    if wrong:
        raise LaidOutError(f"the Ray cluster cannot lay this checkpoint out: {'; '.join(sorted(wrong))}")


def _usable(ray: Any) -> list[Mapping[str, Any]]:
    """Return the nodes that tasks may run on."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]


def progress_board(ray: Any) -> Any:
    """Start the actor that takes the progress of tasks, beside this process."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    with _by_value(ray):
        actor = ray.remote(ProgressBoard).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here)
        return actor.remote()


def _submit(ray: Any, node: Mapping[str, Any], expected: Expectation) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    with _by_value(ray):
        check = ray.remote(check_node).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        return check.remote(expected, str(_answer_file(node, expected)))


def _problems(ray: Any, ref: Any, node: Mapping[str, Any], expected: Expectation) -> list[str]:
    """Return a node's problems, those of its way back included."""
    try:
        _, problems = ray.get(ref)
    except ray.exceptions.RayError as error:
        return [str(error).strip().splitlines()[-1]]
    if problems:
        return list(problems)
    path = _answer_file(node, expected)
    try:
        found = path.read_text(encoding="utf-8")
        path.unlink(missing_ok=True)
    except OSError:
        found = None
    return [] if found == expected.content else [f"what it writes to {path.parent.parent} is not found here"]


def _answer_file(node: Mapping[str, Any], expected: Expectation) -> Path:
    return Path(f"{expected.probe}-{node['NodeID']}")


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


class _by_value:
    """Pickle the code for nodes by value, so that they need no preshuffle to run it."""

    def __init__(self, ray: Any) -> None:
        self._pickle = ray.cloudpickle

    def __enter__(self) -> None:
        self._pickle.register_pickle_by_value(shipped)

    def __exit__(self, *_: object) -> None:
        self._pickle.unregister_pickle_by_value(shipped)

"""Check of a cluster's nodes beside their first work."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from preshuffle.layouts.laid_out.cluster import shipped
from preshuffle.layouts.laid_out.cluster.shipped import Expectation, check_node
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.manifest import WORK
from preshuffle.layouts.laid_out.files.tensor_writer import write_whole
from preshuffle.registry import Registry

_PROBE: Final = "node-check"
_SECONDS: Final = 180.0
"""For which nodes may take to start a process and load the book."""
_SOON: Final = 0.5
"""For which the first tasks wait: a process that is there answers and takes one, so that Ray starts no other."""


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


def check_nodes(ray: Any, expected: Expectation) -> NodeChecks:
    """Begin to check every node that has processors.

    Raises:
        LaidOutError: there is none, or see ``NodeChecks``.
    """
    nodes = _usable(ray)
    if not nodes:
        raise LaidOutError("the Ray cluster has no node with a processor for tasks")
    return NodeChecks(ray, expected, {_submit(ray, node, expected): node for node in nodes})


class NodeChecks:
    """Checks of nodes that run beside the first tasks."""

    def __init__(self, ray: Any, expected: Expectation, pending: Mapping[Any, Mapping[str, Any]]) -> None:
        """Take submitted checks.

        Args:
            ray: the connected module.
            expected: what nodes must have.
            pending: nodes by their submitted checks.

        Raises:
            LaidOutError: names the nodes that answered at once, and differ from this machine.
        """
        self._ray, self._expected, self._pending = ray, expected, dict(pending)
        self._until = time.monotonic() + _SECONDS
        self._look(_SOON)

    def poll(self) -> None:
        """Look at what nodes have answered.

        Raises:
            LaidOutError: names the nodes that differ from this machine.
        """
        self._look(0)

    def finish(self) -> None:
        """Wait for all nodes.

        Raises:
            LaidOutError: names the nodes that differ from this machine, or do not answer.
        """
        self._look(max(0.0, self._until - time.monotonic()))
        problems = {node["NodeID"]: [f"does not answer within {_SECONDS:.0f} s"] for node in self._pending.values()}
        self._pending.clear()
        self._refuse(problems)

    def _look(self, seconds: float) -> None:
        if not self._pending:
            return
        done, _ = self._ray.wait(list(self._pending), num_returns=len(self._pending), timeout=seconds)
        nodes = [(ref, self._pending.pop(ref)) for ref in done]
        self._refuse({node["NodeID"]: _problems(self._ray, ref, node, self._expected) for ref, node in nodes})

    def _refuse(self, problems: Mapping[str, list[str]]) -> None:
        """Refuse nodes that differ; those that died meanwhile get no work."""
        if not any(problems.values()):
            return
        wrong = [
            f"node {_name(node)}: {text}" for node in _usable(self._ray) for text in problems.get(node["NodeID"], ())
        ]
        if wrong:
            raise LaidOutError(f"the Ray cluster cannot lay this checkpoint out: {'; '.join(sorted(wrong))}")


def _usable(ray: Any) -> list[Mapping[str, Any]]:
    """Return the nodes that tasks may run on."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]


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

"""Stand-in of Ray that runs tasks in this process, one after the other, as they are waited for.

It has what ``RayExecutor`` uses, and loses tasks as a cluster does whose nodes die.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    """Error of the cluster."""


class RayTaskError(RayError):
    """Error that a task raised."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"Traceback …\n{type(cause).__name__}: {cause}")
        self.cause = cause


@dataclass(eq=False)
class Ref:
    """Result of a task; it runs when it is waited for."""

    work: Callable[[], Any]
    done: bool = False
    value: Any = None
    error: RayError | None = None

    def run(self) -> None:
        if self.done:
            return
        self.done = True
        try:
            self.value = self.work()
        except RayError as error:
            self.error = error
        except Exception as error:
            self.error = RayTaskError(pickle.loads(pickle.dumps(error)))  # as it comes from another process


@dataclass
class FakeRay:
    """Module ``ray`` of a cluster with one node.

    Attributes:
        lost: names of tasks whose processes die, and how often.
        submitted: names of tasks in their order.
        most: most tasks that were submitted and not done at once.
        cancelled: tasks that were cancelled.
    """

    lost: dict[str, int] = field(default_factory=dict)
    submitted: list[str] = field(default_factory=list)
    most: int = 0
    cancelled: int = 0
    _open: list[Ref] = field(default_factory=list)
    _turn: int = 0

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def nodes(self) -> list[dict[str, Any]]:
        one = {"NodeID": "n1", "NodeManagerHostname": "host-1", "NodeManagerAddress": "10.0.0.1"}
        return [{**one, "Alive": True, "Resources": {"CPU": 2.0}}, {**one, "Alive": False, "Resources": {"CPU": 2.0}}]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def put(self, value: Any) -> Ref:
        value = pickle.dumps(value)
        return Ref(lambda: None, done=True, value=pickle.loads(value))

    def remote(self, function: Any) -> _Remote:
        return _Remote(self, function)

    def submit(self, function: Any, arguments: tuple[Any, ...], name: str, retries: int) -> Ref:
        def work() -> Any:
            given = [self.get(one) if isinstance(one, Ref) else one for one in arguments]
            for attempt in range(retries + 1):
                if self.lost.get(name, 0) > attempt:
                    continue
                return function(*given)
            raise RayError(f"The node of {name} died")

        ref = Ref(work)
        self.submitted.append(name)
        self._open.append(ref)
        self.most = max(self.most, sum(not one.done for one in self._open))
        return ref

    def wait(self, refs: list[Ref], num_returns: int = 1, timeout: float | None = None) -> tuple[list[Ref], list[Ref]]:
        if num_returns == 1:  # each in its turn
            self._turn = (self._turn + 1) % len(refs)
            refs = [*refs[self._turn :], *refs[: self._turn]]
        for ref in refs[:num_returns]:
            ref.run()
        return refs[:num_returns], refs[num_returns:]

    def get(self, ref: Ref, timeout: float | None = None) -> Any:
        ref.run()
        if ref.error is not None:
            raise ref.error
        return ref.value

    def cancel(self, ref: Ref) -> None:
        ref.done = True
        self.cancelled += 1


@dataclass
class _Remote:
    ray: FakeRay
    function: Any
    name: str = ""
    retries: int = 0

    def options(self, name: str = "", max_retries: int = 0, **_: Any) -> _Remote:
        return _Remote(self.ray, self.function, name, max_retries)

    def remote(self, *arguments: Any) -> Any:
        return self.ray.submit(self.function, arguments, self.name, self.retries)


class NoChecks:
    """Checks of nodes that all of them have passed."""

    def poll(self) -> None:
        """Find nothing."""

    def finish(self) -> None:
        """Find nothing."""


def connecting(ray: FakeRay) -> Callable[[str | None], contextlib.AbstractContextManager[FakeRay]]:
    """Return a stand-in of ``connected``."""

    @contextlib.contextmanager
    def connected(address: str | None) -> Iterator[FakeRay]:
        yield ray

    return connected

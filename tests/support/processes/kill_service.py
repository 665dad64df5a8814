"""The service killed in the middle of writes, and what a new one finds in its store."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from preshuffle.api.store.store import Store
from support.service.server import OBSERVATION, REPORT, Server

WRITERS = 4


@dataclass
class Writers:
    """Write deployments one after the other until the service is gone; remember what was acknowledged.

    Attributes:
        acknowledged: revision by name.
        beaten: time of the last acknowledged heartbeat by name.
        sent: all names that may be there.
    """

    server: Server
    writes: int
    acknowledged: dict[str, int] = field(default_factory=dict)
    beaten: dict[str, str] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)

    def kill_after(self, acknowledged: int) -> None:
        """Write, and kill the service when this many writes have been acknowledged."""
        done = threading.Event()

        def kill() -> None:
            while len(self.acknowledged) < acknowledged and not done.is_set():
                time.sleep(0.001)
            self.server.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(self._write, range(WRITERS)))
        done.set()
        killer.join()

    def _write(self, writer: int) -> None:
        with httpx.Client(base_url=self.server.url, timeout=60) as client:
            for number in range(self.writes // WRITERS):
                name = f"w{writer}-{number:04}"
                self.sent.add(name)
                try:
                    answer = client.put(f"/v1/deployments/{name}", json=report(name))
                    assert answer.status_code == 201, answer.text
                    self.acknowledged[name] = answer.json()["revision"]
                    beat = client.post(f"/v1/deployments/{name}/heartbeat")
                    assert beat.status_code == 200, beat.text
                    self.beaten[name] = beat.json()["seen_at"]
                except httpx.TransportError:
                    return


def report(name: str) -> dict[str, object]:
    """Return a report of two groups, so that half of it could be missing."""
    groups = [{"layers": str(layer), "observation": OBSERVATION} for layer in range(2)]
    return {**REPORT, "node": name, "groups": groups}


def assert_nothing_is_lost(store: Store, writers: Writers) -> None:
    """Check that everything acknowledged is there, whole and once, and nothing else but what was under way."""
    found = {}
    after, more = "", True
    while more:
        page, more = store.page(500, after)
        found.update({one.name: one for one in page})
        after = page[-1].name if page else after
    assert writers.acknowledged.keys() <= found.keys() <= writers.sent
    assert len(found) - len(writers.acknowledged) <= WRITERS
    revisions = [one.revision for one in found.values()]
    assert len(set(revisions)) == len(revisions)
    assert store.counters()["revision"] == max(revisions)
    for name, one in found.items():
        assert (one.replicas, one.state, len(one.groups)) == ((0,), "ok", 2)
        assert one.revision == writers.acknowledged.get(name, one.revision)
        seen = writers.beaten.get(name)
        assert seen is None or one.seen_at.isoformat().replace("+00:00", "Z")[:19] >= seen[:19]
    events = store.history(500).events
    assert {event.subject for event in events if event.action == "report"} <= found.keys()
    kept = store.get(next(iter(found)))
    assert kept is not None
    assert kept.replicas[0].report.node == kept.name

"""Benchmark of the metrics that name deployments, and of the webhook.

    python bench/service/bench_notify.py [--deployments 10000] [--wrong 1000]

One process; the receiver of the webhook is a thread of it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from preshuffle.api.fleet.deployments import ReplicaReport
from preshuffle.api.fleet.judgement import judge
from preshuffle.api.notify.bad_deployments import BadDeployments
from preshuffle.api.notify.collector import NotifyCollector
from preshuffle.api.notify.links import Links
from preshuffle.api.notify.payloads import FORMATS
from preshuffle.api.notify.webhook import Webhook
from preshuffle.api.store.state_changes import claim_state_changes
from preshuffle.api.store.store import Store
from preshuffle.registry import Registry

QUERY = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "fp4x2", "tp": 2}
ROUNDS = 20


def body(layout: str) -> ReplicaReport:
    applied = {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": layout, "is_shuffled": True}}}
    return ReplicaReport.parse({"groups": [{"layers": "0-35", "observation": {"query": QUERY, "applied": applied}}]})


def fill(store: Store, deployments: int, wrong: int) -> None:
    registry = Registry.default()
    reports = {layout: body(layout) for layout in ("sep16", "gui16")}
    judged = {layout: judge(report, registry) for layout, report in reports.items()}
    for number in range(deployments):
        layout = "gui16" if number < wrong else "sep16"
        store.put(f"d{number:05}", 0, reports[layout], judged[layout])


def milliseconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


class Receiver(BaseHTTPRequestHandler):
    """Counts changes."""

    taken = 0

    def do_POST(self) -> None:
        Receiver.taken += len(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["changes"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


def send_all(store: Store) -> tuple[int, float]:
    """Return how many changes were sent, and in how many seconds."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    webhook = Webhook(f"http://127.0.0.1:{server.server_address[1]}/", FORMATS["generic"], Links(""))
    started = time.perf_counter()
    webhook.start()
    while changes := claim_state_changes(store):
        webhook.take(changes)
        while webhook.waiting > 500:
            time.sleep(0.001)
    while webhook.waiting:
        time.sleep(0.001)
    webhook.stop()
    server.shutdown()
    return webhook.counts.sent, time.perf_counter() - started


def measure(store: Store, most: int) -> None:
    bad = BadDeployments(store)
    registry = CollectorRegistry()
    first = milliseconds(bad.find)
    registry.register(NotifyCollector(bad, most, Links("https://preshuffle.example"), None))
    again = median(milliseconds(lambda: generate_latest(registry)) for _ in range(ROUNDS))
    size = len(generate_latest(registry)) / 1024
    print(f"{most:5} named: {first:.1f} ms after a change, {again:.1f} ms a scrape, {size:.0f} KB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=10_000)
    parser.add_argument("--wrong", type=int, default=1000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/store.db").create()
        fill(store, args.deployments, args.wrong)
        sent, seconds = send_all(store)
        print(f"webhook: {sent} changes in {seconds:.2f} s, {sent / seconds:,.0f} a second")
        for most in (0, 100, 1000):
            measure(store, most)
        store.close()


if __name__ == "__main__":
    main()

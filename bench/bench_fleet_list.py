"""Benchmark of the fleet list: page, API, groups, filters, orders.

    python bench/bench_fleet_list.py [--deployments 10000] [--replicas 1] [--db postgresql://…]

Each figure is the median of requests to a service in a child process, one after the other.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_fleet import APPLIED, QUERY, service, timed

from preshuffle.api.fleet import Judgement, ReplicaReport, judge
from preshuffle.api.store import Store
from preshuffle.api.store.quota import Quota
from preshuffle.api.store.rows import deployment_row, now_ms
from preshuffle.api.store.writes import IncomingReport, write_report
from preshuffle.registry import Registry

WRONG = {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "gui16", "is_shuffled": True}}}
LOST = {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "sep16", "is_shuffled": False}}}
KINDS: tuple[dict[str, Any], ...] = (APPLIED, APPLIED, APPLIED, APPLIED, APPLIED, APPLIED, APPLIED, WRONG, LOST, {})
ENGINES = (None, "sglang@0.5.9", "vllm@0.20.0")
TEAMS = ("inference", "search", "ads", "speech", "vision")
PATHS = (
    "/",
    "/?state=mismatch&sort=node&engine=sglang",
    "/?label=team=ads&sort=-since&name=d0",
    "/?code=layout_mismatch&group_by=engine",
    "/?group_by=node",
    "/v1/deployments",
    "/v1/deployments?sort=since&state=mismatch",
    "/v1/deployments?sort=engine&node=node-1*&code=layout_mismatch,tag_lost",
    "/v1/deployments?sort=label:team&model=gpt-oss-120b&arch=MI355X",
    "/v1/deployments?limit=500",
)


def report(number: int, replica: int) -> dict[str, Any]:
    engine = ENGINES[number % 3]
    query = {**QUERY, "tp": (1, 2, 4, 8)[number % 4], **({"engine": engine} if engine else {})}
    group = {"layers": "0-35", "observation": {"query": query, "applied": KINDS[number % len(KINDS)]}}
    labels = {"team": TEAMS[number % 5], "tier": "prod" if number % 7 else "canary"}
    node = f"node-{number * 8 + replica}"
    return {"groups": [group], "node": node, "ttl_s": 36_000, "labels": labels, "owner": f"owner-{number % 40}"}


def fill(db: str, deployments: int, replicas: int) -> None:
    """Store all of them in one transaction."""
    store, registry, quota = Store(db).create(), Registry.default(), Quota()
    judged: dict[str, Judgement] = {}
    with store.changing("changes") as connection:
        for number in range(deployments):
            name = f"d{number:05}"
            for replica in range(replicas):
                reported = ReplicaReport.parse(report(number, replica))
                key = reported.groups[0].model_dump_json(exclude_unset=True)
                judgement = judged.get(key) or judged.setdefault(key, judge(reported, registry))
                stored = deployment_row(connection, name)
                write_report(connection, IncomingReport(name, replica, reported, judgement), stored, quota, now_ms())
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=10_000)
    parser.add_argument("--replicas", type=int, default=1, help="of each deployment")
    parser.add_argument("--db", help="an empty database (default: SQLite in a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        db, book = args.db or f"sqlite:///{folder}/store.db", Path(folder) / "book"
        book.mkdir()
        (book / "book.yaml").write_text("models: {}\n")
        started = time.perf_counter()
        fill(db, args.deployments, args.replicas)
        duration = time.perf_counter() - started
        print(f"{args.deployments} deployments of {args.replicas} replicas stored in {duration:.1f} s")
        with service(db, book) as (url, _):
            time.sleep(5)  # the first re-check is over
            for path in PATHS:
                print(f"GET {path}: median {timed(url, path):.1f} ms")


if __name__ == "__main__":
    main()

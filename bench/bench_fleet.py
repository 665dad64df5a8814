"""Benchmark of lists, heartbeats and a re-check of 10,000 deployments.

    python bench/bench_fleet.py [--deployments 10000] [--seconds 20] [--rate 1000] [--db postgresql://…]

This process makes the load; the service is a child process, and re-checks in another one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx

from preshuffle.api.fleet.deployments import ReplicaReport
from preshuffle.api.fleet.judgement import Judgement, judge
from preshuffle.api.store.store import Store
from preshuffle.registry import Registry

QUERY = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "fp4x2"}
APPLIED = {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "sep16", "is_shuffled": True}}}
CHANGE = """
rules:
  bench.other:
    when: {model: openai/gpt-oss-120b, arch: gfx950, activation_dtype: fp4x2, deployment: nowhere}
    use: mxfp4.gui16
    because: it makes another registry of this one
    evidence: [https://example.org/bench]
"""
CONNECTIONS = 32


def report(number: int, kinds: int) -> dict[str, Any]:
    kind = number % kinds
    query = {**QUERY, "num_experts": 64 + kind, "tp": (1, 2, 4, 8)[kind % 4], "deployment": f"d{number}"}
    group = {"layers": "0-35", "observation": {"query": query, "applied": APPLIED}}
    return {"groups": [group], "node": f"node-{number}", "ttl_s": 3600}


def fill(db: str, deployments: int, kinds: int) -> None:
    store, registry = Store(db).create(), Registry.default()
    judged: dict[int, Judgement] = {}
    for number in range(deployments):
        reported = ReplicaReport.parse(report(number, kinds))
        kind = number % kinds
        judged[kind] = judged.get(kind) or judge(reported, registry)
        store.put(f"d{number:05}", 0, reported, judged[kind])
    store.close()


@contextmanager
def service(db: str, book: Path) -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-m", "preshuffle.api.cli", "serve", "--port", "0", "--db", db, "--book", str(book)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        yield next(word for word in line.split() if word.startswith("http://")), process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


def rss_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def timed(url: str, path: str, times: int = 9) -> float:
    with httpx.Client(base_url=url, timeout=60) as client:
        durations = []
        for _ in range(times):
            started = time.perf_counter()
            assert client.get(path).status_code == 200
            durations.append((time.perf_counter() - started) * 1000)
    return median(durations)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, path: str) -> int:
    """Send one request on an open connection; return the status."""
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.split(b":")[1]))
    return int(head.split(b" ", 2)[1])


async def load(url: str, method: str, paths: list[str], rate: float, seconds: float) -> tuple[list[float], int]:
    """Send requests at a constant rate; return latencies and errors.

    Latencies are in ms; errors are counted.
    """
    host, port = url.removeprefix("http://").split(":")
    latencies: list[float] = []
    errors = 0
    started = time.perf_counter()

    async def send(connection: int) -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection(host, int(port))
        for turn in range(connection, int(rate * seconds), CONNECTIONS):
            due = started + turn / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            sent = time.perf_counter()
            status = await ask(reader, writer, method, paths[turn % len(paths)])
            errors += status != 200
            latencies.append((time.perf_counter() - sent) * 1000)
        writer.close()

    await asyncio.gather(*(send(connection) for connection in range(CONNECTIONS)))
    return latencies, errors


def p99(latencies: list[float]) -> float:
    return quantiles(latencies, n=100)[98]


def beats(url: str, pid: int, names: list[str], rate: float, seconds: float) -> None:
    paths = [f"/v1/deployments/{name}/heartbeat" for name in names]
    asyncio.run(load(url, "POST", paths, rate, min(5.0, seconds)))
    before, started = rss_mib(pid), time.perf_counter()
    latencies, errors = asyncio.run(load(url, "POST", paths, rate, seconds))
    duration = time.perf_counter() - started
    print(
        f"heartbeats: {len(latencies) / duration:.0f}/s for {duration:.0f} s, {errors} errors, "
        f"median {median(latencies):.1f} ms, p99 {p99(latencies):.1f} ms, memory {before:.0f} -> {rss_mib(pid):.0f} MiB"
    )


def recheck(url: str, db: str, book: Path, deployments: int) -> None:
    path = "/v1/resolve?" + "&".join(f"{name}={value}" for name, value in QUERY.items())
    quiet, _ = asyncio.run(load(url, "GET", [path], 500, 5))
    (book / "book.yaml").write_text(CHANGE)
    store, judged, started, busy = Store(db), 0, 0.0, []
    with httpx.Client(base_url=url, timeout=60) as client:
        before = client.get("/readyz").json()["registry_digest"]
        while client.get("/readyz").json()["registry_digest"] == before:
            time.sleep(0.05)
        started = time.perf_counter()
        name = client.get("/readyz").json()["registry_digest"]
    while judged < deployments:
        latencies, errors = asyncio.run(load(url, "GET", [path], 500, 1))
        assert errors == 0
        busy += latencies
        with store.transaction() as connection:
            text = "SELECT count(*) FROM replicas WHERE judged_by LIKE '" + name + "%%'"
            judged = connection.exec_driver_sql(text).scalar_one()
    duration = time.perf_counter() - started
    store.close()
    print(
        f"re-check: {deployments} in {duration:.1f} s; reads meanwhile (500/s): median {median(busy):.1f} ms, "
        f"p99 {p99(busy):.1f} ms (before: {median(quiet):.1f}, {p99(quiet):.1f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=10_000)
    parser.add_argument("--kinds", type=int, default=64, help="number of kinds that differ in more than their names")
    parser.add_argument("--seconds", type=float, default=20, help="duration of the heartbeats")
    parser.add_argument("--rate", type=float, default=1000, help="heartbeats per second")
    parser.add_argument("--db", help="an empty database (default: SQLite in a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        db = args.db or f"sqlite:///{folder}/store.db"
        book = Path(folder) / "book"
        book.mkdir()
        (book / "book.yaml").write_text("models: {}\n")
        started = time.perf_counter()
        fill(db, args.deployments, args.kinds)
        duration = time.perf_counter() - started
        print(f"{args.deployments} deployments of {args.kinds} kinds stored in {duration:.1f} s, one after the other")
        with service(db, book) as (url, pid):
            for path in (
                "/v1/deployments?limit=100",
                "/v1/deployments?limit=100&state=ok",
                "/v1/history?limit=100",
                "/",
            ):
                print(f"GET {path}: median {timed(url, path):.1f} ms")
            names = [
                deployment["name"]
                for deployment in json.loads(httpx.get(f"{url}/v1/deployments?limit=500").content)["deployments"]
            ]
            beats(url, pid, names, args.rate, args.seconds)
            recheck(url, db, book, args.deployments)


if __name__ == "__main__":
    main()

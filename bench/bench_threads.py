"""Benchmark of the service's number of threads and switch interval.

Few that are switched often, against anyio's and Python's own settings.

Run `python bench/bench_threads.py [SECONDS] [ROUNDS]`. Both services run beside each other and are asked in turns, by
`wrk` with 32 connections. On a machine that others use, requests per second of the service's CPU tell more than
requests per second.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from bench_http import QUERY, load, running

SERVE = """
import sys
import preshuffle.api.app as app
app._THREADS, app._SWITCH_S = int(sys.argv.pop(1)), float(sys.argv.pop(1))
from preshuffle.api.cli import main
sys.exit(main())
"""
SETTINGS = {"4 threads, 1 ms": ("4", "0.001"), "40 threads, 5 ms": ("40", "0.005")}
OBSERVATION = {"query": QUERY, "applied": {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "sep16"}}}}
POST = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local number = 0
request = function()
  number = number + 1
  return wrk.format(nil, nil, nil, (string.gsub([[BODY]], "2880", tostring(1024 + 32 * (number % 200)))))
end
"""


def cpu_s(port: int) -> float:
    """Return the CPU seconds of the process that listens on a port."""
    listening = subprocess.run(["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"pid=(\d+)", listening)
    assert match, listening
    fields = Path(f"/proc/{match[1]}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    query = "&".join(f"{name}={value}" for name, value in QUERY.items())
    sizes = {"query": {**QUERY, "hidden_size": 2880}, "applied": OBSERVATION["applied"]}
    post = {
        name: POST.replace("BODY", json.dumps(body))
        for name, body in (("known", OBSERVATION), ("of many sizes", sizes))
    }
    work = {
        "GET /v1/resolve": (f"/v1/resolve?{query}", ""),
        "POST /v1/check": ("/v1/check", post["known"]),
        "POST /v1/check of 200 sizes": ("/v1/check", post["of many sizes"]),
    }
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for index, settings in enumerate(SETTINGS.values()):
            db = f"sqlite:///{folder}/{index}.db"
            serve = [sys.executable, "-c", SERVE, *settings, "serve", "--port", str(8481 + index), "--db", db]
            stack.enter_context(running(serve, f"http://127.0.0.1:{8481 + index}/healthz"))
        for _ in range(rounds):
            for name, (path, script) in work.items():
                for index, setting in enumerate(SETTINGS):
                    before = cpu_s(8481 + index)
                    rate, p99 = load(f"http://127.0.0.1:{8481 + index}{path}", seconds, script)
                    found[name, setting].append((rate, rate * seconds / (cpu_s(8481 + index) - before), p99))
    for (name, setting), figures in found.items():
        rate, per_cpu, p99 = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"{name:28} {setting:17} {rate:8.0f} /s {per_cpu:8.0f} per s of CPU, p99 {p99:6.1f} ms")


if __name__ == "__main__":
    main()

"""Benchmark of the service's cached reads against a bare FastAPI route.

Both return the same bytes, in one run.

Run `python bench/bench_http.py [SECONDS]`. The load comes from `wrk` (32 connections, another process); the servers
run in turns, one worker each, with the same uvicorn settings. Figures are medians of the rounds, ratios of one round.
"""

import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROUNDS = 5
CONNECTIONS = 32
QUERY: dict[str, str | int] = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "fp4x2", "tp": 2}
BARE = """
import sys
import uvicorn
from fastapi import FastAPI
from starlette.responses import Response

body = open(sys.argv[1], "rb").read()
app = FastAPI()

@app.get("/v1/resolve")
async def get() -> Response:
    return Response(body, media_type="application/json")

uvicorn.run(app, port=int(sys.argv[2]), log_config=None, access_log=False, server_header=False)
"""


@contextmanager
def running(command: list[str], url: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                httpx.get(url)
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def load(url: str, seconds: int, script: str = "") -> tuple[float, float]:
    """Return requests/s and the 99th percentile of the latency in milliseconds."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        said = subprocess.run([*command, "-s", file.name, url], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said and "304" not in script:
        raise SystemExit(said)
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", said).groups()  # type: ignore[union-attr]
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate
    return float(rate[1]), float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def main() -> None:
    if shutil.which("wrk") is None:
        raise SystemExit("bench_http needs wrk (Debian's package of that name)")
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    with tempfile.TemporaryDirectory() as folder:
        ours, bare = "http://127.0.0.1:8471", "http://127.0.0.1:8472"
        serve = [
            sys.executable,
            "-m",
            "preshuffle.api.cli",
            "serve",
            "--port",
            "8471",
            "--db",
            f"sqlite:///{folder}/s.db",
        ]
        path = "/v1/resolve?" + str(httpx.QueryParams(QUERY))
        with running(serve, f"{ours}/healthz"):
            answer = httpx.get(ours + path)
            body = Path(folder, "body.json")
            body.write_bytes(answer.content)
            server = Path(folder, "bare.py")
            server.write_text(BARE)
            query = json.dumps(QUERY)
            headers = "wrk.headers['Content-Type']='application/json'"
            post = f"wrk.method='POST' {headers} wrk.body='{query}'"
            known = f"wrk.headers['If-None-Match']='{answer.headers['etag']}' -- 304"
            with running([sys.executable, str(server), str(body), "8472"], bare + path):
                cases = {
                    "bare FastAPI": (bare + path, ""),
                    "GET resolve": (ours + path, ""),
                    "POST resolve": (f"{ours}/v1/resolve", post),
                    "304": (ours + path, known),
                }
                found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
                for _ in range(ROUNDS):
                    for name, (url, script) in cases.items():
                        found[name].append(load(url, seconds, script))
    print(
        f"{len(answer.content)} bytes, {CONNECTIONS} connections, {ROUNDS} rounds of {seconds} s; ratio to bare FastAPI"
    )
    for name, rounds in found.items():
        ratios = [ours[0] / theirs[0] for ours, theirs in zip(rounds, found["bare FastAPI"], strict=True)]
        rate, late = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{name:14} {rate:9,.0f}/s  {statistics.median(ratios):5.2f}  p99 {late:6.2f} ms")


if __name__ == "__main__":
    main()

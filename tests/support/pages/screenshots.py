"""Takes the README's screenshots: ``PYTHONPATH=tests python -m support.pages.screenshots docs/images``.

Each is below 200 kB.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from selenium.webdriver import Chrome

from support.pages.browser import browser
from support.service.server import OBSERVATION, Server, running_server

WIDTH = 1180
MARGIN = 12
"""Below the last element that is shown."""
INTERLEAVED: dict[str, Any] = {
    "gate_mode": "separated",
    "tensors": {"w13_weight": {"layout": "gui16", "is_shuffled": True}, "w13_weight_scale": {"layout": "e8_gui16"}},
}


def fleet(url: str) -> None:
    """Report a few deployments, one of each kind."""
    applied = OBSERVATION["applied"]
    lost = {"tensors": {"w13_weight": {"layout": "sep16", "is_shuffled": False}}}
    block = {"activation_dtype": "fp8", "tp": 8}
    of_team: dict[str, Any] = {"owner": "inference", "labels": {"team": "chat", "region": "eu"}}
    report(url, "gpt-oss-prod", applied, replica=0, aiter_build="0.1.20.post1", **of_team)
    report(url, "gpt-oss-prod", applied, replica=1, aiter_build="0.1.20.post1")
    report(url, "gpt-oss-eu", applied)
    report(url, "deepseek-r1", applied, {**block, "model": "deepseek-ai/DeepSeek-R1", "engine": "vllm@0.20.0"})
    report(url, "kimi-k2", {}, {**block, "model": "moonshotai/Kimi-K2-Instruct", "arch": "gfx942"})
    report(url, "gpt-oss-old", applied, decision_digest=f"sha256:{'0' * 64}")
    report(url, "gpt-oss-eu", lost)
    report(url, "gpt-oss-canary", applied)
    report(url, "gpt-oss-canary", INTERLEAVED)


def report(
    url: str,
    name: str,
    applied: dict[str, Any],
    query: dict[str, Any] | None = None,
    replica: int = 0,
    decision_digest: str | None = None,
    **more: Any,
) -> None:
    """Report one replica."""
    group: dict[str, Any] = {
        "layers": "0-35",
        "observation": {"query": {**OBSERVATION["query"], **(query or {})}, "applied": applied},
    }
    if decision_digest:
        group["decision_digest"] = decision_digest
    body = {"groups": [group], "node": f"mi355x-{replica + 7:02}", **more}
    httpx.put(f"{url}/v1/deployments/{name}?replica={replica}", json=body).raise_for_status()


def shoot(window: Chrome, file: Path, bottom: str, top: str = "body") -> None:
    """Save the page from the top of an element to the bottom of another."""
    place = "return document.querySelector(arguments[0]).getBoundingClientRect()"
    start = max(0, window.execute_script(f"{place}.top", top) - MARGIN)
    end = window.execute_script(f"{place}.bottom", bottom)
    clip = {"x": 0, "y": start, "width": WIDTH, "height": end + MARGIN - start, "scale": 1}
    wanted = {"format": "png", "captureBeyondViewport": True, "clip": clip}
    shot = window.execute_cdp_cmd("Page.captureScreenshot", wanted)
    file.write_bytes(base64.b64decode(shot["data"]))


def take(server: Server, window: Chrome, folder: Path) -> None:
    """Take all of them."""
    metrics = {"width": WIDTH, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    window.get(server.url)
    shoot(window, folder / "deployments.png", "table.cards")
    window.get(f"{server.url}/book/layouts/gui16")
    shoot(window, folder / "layout.png", "figure")
    window.get(f"{server.url}/matrix?engine=sglang@0.5.23&tp=8&model=DeepSeek-V4")
    shoot(window, folder / "matrix.png", "table.matrix", "main > p[role=status]")
    window.get(f"{server.url}/resolve?model=openai/gpt-oss-120b&arch=MI355X&engine=vllm@0.33.0&tp=2")
    shoot(window, folder / "launch.png", "#launch-call", "#answer")
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    window.get(f"{server.url}/deployments/gpt-oss-canary")
    shoot(window, folder / "deployment.png", ".chart")


if __name__ == "__main__":
    with TemporaryDirectory() as scratch:
        with running_server(Path(scratch) / "store.db") as service, browser(Path(scratch) / "profile") as opened:
            fleet(service.url)
            take(service, opened, Path(sys.argv[1]))

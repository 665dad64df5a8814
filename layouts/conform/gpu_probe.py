"""Golden layers through the installed AITER on an AMD GPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from preshuffle.layouts.conform.aiter_source import AiterSource
from preshuffle.layouts.conform.child import run_worker
from preshuffle.layouts.conform.claim_log import ClaimLog
from preshuffle.layouts.conform.errors import ConformError
from preshuffle.layouts.probe import GOLDEN_LAYERS, why_not_here
from preshuffle.registry import Registry

TIMEOUT_S: Final = 1800.0
TOKENS: Final = (1, 16, 64, 256, 1024, 4096)
"""One count of each bucket in which AITER may change the activations or the kernel."""
_ROCM: Final = ("HIP_", "HSA_", "ROCM_", "ROCR_", "AITER_", "GPU_")


def check_probe(
    source: AiterSource,
    registry: Registry,
    progress: Callable[[int, int], None] = lambda done, all: None,
    overlays: tuple[str, ...] = (),
) -> ClaimLog:
    """Probe every recipe of every golden layer at every token bucket.

    Args:
        source: of which AITER; only the installed one can run.
        registry: whose recipes.
        progress: called with results so far, and 0 for what is not known.
        overlays: folders that the child loads its book with, too.
    """
    log = ClaimLog()
    everything = "golden layers of every quantization and token bucket"
    if source.place != "installed":
        log.not_run(everything, "only an installed AITER can run on a GPU")
        return log
    reason = why_not_here()
    if reason is not None:
        log.not_run(everything, reason)
        return log
    request = {"quantizations": list(GOLDEN_LAYERS), "tokens": list(TOKENS), "overlays": list(overlays)}
    env = {name: value for name, value in os.environ.items() if name.startswith(_ROCM)}
    try:
        answers = run_worker(
            "probe_worker", request, timeout_s=TIMEOUT_S, progress=lambda done: progress(done, 0), env=env
        )
    except ConformError as error:
        log.not_run(everything, str(error))
        return log
    for answer in answers:
        _count(log, answer)
    return log


def _count(log: ClaimLog, answer: dict[str, Any]) -> None:
    if "failed" in answer:
        log.not_run("golden layers after these", answer["failed"])
        return
    case = f"{answer['quantization']}, recipe {answer.get('recipe', 'none')}"
    if "refused" in answer:
        log.not_run(case, answer["refused"])
        return
    result = answer["result"]
    if result["verdict"] in ("pass", "warn"):
        log.agree()
        return
    looks = f", looks like: {result['looks_like']}" if result["looks_like"] else ""
    there = result["error"] or f"relative L2 {result['relative_l2']}, cosine {result['cosine']}{looks}"
    log.disagree(
        f"recipes.{answer['recipe']}",
        f"{case}, {result['tokens']} tokens: {result['kernel']}",
        "the layer's numbers",
        there,
    )

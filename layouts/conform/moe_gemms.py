"""AITER's Triton MoE kernels on layers that recipes laid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Final

import torch

from preshuffle.layouts.conform.aiter_source import AiterSource
from preshuffle.layouts.conform.child import run_worker
from preshuffle.layouts.conform.claim_log import ClaimLog
from preshuffle.layouts.conform.errors import ConformError
from preshuffle.registry.loading import Book

TIMEOUT_S: Final = 900.0
FUNCTION: Final = "moe_gemm_a16w4"
TOKENS: Final = (1, 48)
ARCH: Final = "gfx950"
"""GPU that the kernels are told of: theirs are plain Triton, and the same as gfx942's."""
LABEL: Final = "CDNA4_SCALE"
"""The kernels' name of a scale's layout, an alias in the book."""
PLAIN: Final = "plain"
SOURCE: Final = "aiter/ops/triton/moe/moe_op_gemm_a16w4.py"
_OTHERS: Final = "its Triton kernels for other activations need AMD's quantization kernels"


def check_triton(
    source: AiterSource,
    book: Book,
    progress: Callable[[int, int], None] = lambda done, all: None,
    overlays: tuple[str, ...] = (),
) -> ClaimLog:
    """Run every recipe for AITER's Triton MoE GEMM, and compare with float64.

    Compiled where torch has a GPU, else by Triton's interpreter.

    Args:
        source: of which AITER.
        book: whose recipes.
        progress: called with results so far and all.
        overlays: folders that the child loads its book with, too.
    """
    log = ClaimLog()
    everything = "AITER's Triton MoE kernels"
    if find_spec("triton") is None:
        log.not_run(everything, "triton is not installed")
        return log
    labels = {id: LABEL for id, entry in book.layouts.items() if LABEL in entry.aliases}
    recipes = _recipes(log, book, labels)
    request = {
        **{"root": str(source.root), "package": str(source.package), "overlays": list(overlays)},
        **{"recipes": recipes, "tokens": list(TOKENS), "labels": labels},
    }
    env = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    total = len(recipes) * len(TOKENS) + 1
    try:
        answers = run_worker(
            "triton_worker", request, timeout_s=TIMEOUT_S, progress=lambda done: progress(done, total), env=env
        )
    except ConformError as error:
        log.not_run(everything, str(error))
        return log
    for answer in answers:
        _count(log, answer)
    log.note("Triton's kernels ran " + ("compiled for this GPU" if not env else "in Triton's interpreter"))
    return log


def _recipes(log: ClaimLog, book: Book, labels: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return recipes that differ in what the kernel gets, with the GPU that each is tried for."""
    found: dict[Any, str] = {}
    for recipe in book.recipes.values():
        if recipe.call.backend != "triton":
            continue
        tensors = tuple(sorted((role, tensor.layout, str(tensor.order)) for role, tensor in recipe.tensors.items()))
        others = {layout for _, layout, _ in tensors} - {PLAIN, *labels}
        if recipe.call.function != FUNCTION:
            log.not_run(f"recipes.{recipe.id}", f"{recipe.call.function}: {_OTHERS}, or it is the engine's own")
        elif others:
            log.not_run(f"recipes.{recipe.id}", f"{', '.join(sorted(others))}: gfx1250's kernels are written in Gluon")
        elif tensors in found:
            log.not_run(f"recipes.{recipe.id}", f"the same layouts and row orders as {found[tensors]}")
        else:
            found[tensors] = recipe.id
    return [(id, ARCH) for id in found.values()]


def _count(log: ClaimLog, answer: dict[str, Any]) -> None:
    if "missing" in answer:
        log.not_run("AITER's Triton MoE kernels", f"this AITER has no {FUNCTION}: {answer['missing']}")
        return
    if "failed" in answer:
        log.not_run("Triton runs after these", answer["failed"])
        return
    entry, case = f"recipes.{answer['recipe']}", f"{answer['recipe']} on {answer['arch']}"
    if "refused" in answer:
        log.not_run(entry, answer["refused"])
        return
    result = answer["result"]
    passed = result["verdict"] in ("pass", "warn")
    numbers = result["error"] or f"relative L2 {result['relative_l2']}"
    case = f"{case}, {result['tokens']} tokens"
    if answer["spoilt"]:
        if passed:
            log.disagree(entry, f"{case}, {answer['spoilt']}", "wrong bytes are seen", f"they pass: {numbers}")
        else:
            log.agree()
        return
    if passed:
        log.agree()
    else:
        looks = f", looks like: {result['looks_like']}" if result["looks_like"] else ""
        log.disagree(entry, case, "the layer's numbers", numbers + looks, SOURCE)

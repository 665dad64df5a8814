"""AITER's Triton MoE kernels on layers that recipes laid out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from typing import Any, Final

import torch

from preshuffle.layouts.conform.aiter_source import AiterSource
from preshuffle.layouts.conform.child import run_worker
from preshuffle.layouts.conform.claim_log import ClaimLog
from preshuffle.layouts.conform.errors import ConformError
from preshuffle.registry.loading import Book

TIMEOUT_S: Final = 900.0
FUNCTIONS: Final = ("moe_gemm_a16w4", "moe_gemm_a8w4", "moe_gemm_a4w4")
WITHOUT_RECIPES: Final = {"moe_gemm_a4w4": "moe_gemm_a16w4"}
"""Functions that engines call on gfx1250 alone, and those whose recipes they are tried on: the kernels read MX weights
in one way, whatever their activations are."""
TOKENS: Final = (1, 48)
ARCH: Final = "gfx950"
"""GPU that the kernels are told of: theirs are plain Triton, and the same as gfx942's."""
LABEL: Final = "CDNA4_SCALE"
"""The kernels' name of a scale's layout, an alias in the book."""
PLAIN: Final = "plain"
SOURCE: Final = "aiter/ops/triton/moe/moe_op_gemm_{}.py"
_Recipes = dict[str, list[tuple[str, str]]]


def check_triton(
    source: AiterSource,
    book: Book,
    progress: Callable[[int, int], None] = lambda done, all: None,
    overlays: tuple[str, ...] = (),
) -> ClaimLog:
    """Run every recipe for AITER's Triton MoE GEMM, and compare with float64.

    Compiled where torch has a GPU, and then each tensor in every other layout, too; else by Triton's interpreter.

    Args:
        source: of which AITER.
        book: whose recipes.
        progress: called with results so far and all, 0 where that is not known: a GPU runs other layouts, too.
        overlays: folders that the child loads its book with, too.
    """
    log = ClaimLog()
    everything = "AITER's Triton MoE kernels"
    if find_spec("triton") is None:
        log.not_run(everything, "triton is not installed")
        return log
    labels = {id: LABEL for id, entry in book.layouts.items() if LABEL in entry.aliases}
    compiled = torch.cuda.is_available()
    functions = _recipes(log, book, labels)
    request = {
        **{"root": str(source.root), "package": str(source.package), "overlays": list(overlays)},
        **{"functions": functions, "tokens": list(TOKENS), "labels": labels, "other_layouts": compiled},
    }
    env = {} if compiled else {"TRITON_INTERPRET": "1"}
    total = 0 if compiled else sum(len(recipes) * len(TOKENS) + 1 for recipes in functions.values())
    try:
        answers = run_worker(
            "triton_worker", request, timeout_s=TIMEOUT_S, progress=lambda done: progress(done, total), env=env
        )
    except ConformError as error:
        log.not_run(everything, str(error))
        return log
    for answer in answers:
        _count(log, answer)
    for function in functions:
        log.note(_numbers(function, answers))
    log.note("Triton's kernels ran " + ("compiled for this GPU" if compiled else "in Triton's interpreter"))
    return log


def _recipes(log: ClaimLog, book: Book, labels: Mapping[str, str]) -> _Recipes:
    """Return by function the recipes that differ in what it gets, with the GPU that each is tried for."""
    found: dict[Any, str] = {}
    functions: _Recipes = {function: [] for function in FUNCTIONS}
    for recipe in book.recipes.values():
        if recipe.call.backend != "triton":
            continue
        function = recipe.call.function
        tensors = (
            function,
            *sorted((role, tensor.layout, str(tensor.order)) for role, tensor in recipe.tensors.items()),
        )
        others = {tensor.layout for tensor in recipe.tensors.values()} - {PLAIN, *labels}
        if function not in functions:
            log.not_run(f"recipes.{recipe.id}", f"{function} is the engine's own")
        elif others:
            log.not_run(f"recipes.{recipe.id}", f"{', '.join(sorted(others))}: gfx1250's kernels are written in Gluon")
        elif tensors in found:
            log.not_run(f"recipes.{recipe.id}", f"the same layouts and row orders as {found[tensors]}")
        else:
            found[tensors] = recipe.id
            functions[function].append((recipe.id, ARCH))
    for function, other in WITHOUT_RECIPES.items():
        functions[function] = functions[function] or functions[other]
    return {function: recipes for function, recipes in functions.items() if recipes}


def _numbers(function: str, answers: Iterable[dict[str, Any]]) -> str:
    """Return how far a function's runs were from float64, right layouts and wrong ones."""
    results = [answer for answer in answers if answer.get("function") == function and "result" in answer]
    errors = [(answer["result"]["relative_l2"], bool(answer["spoilt"])) for answer in results]
    right = [error for error, spoilt in errors if error is not None and not spoilt]
    wrong = [error for error, spoilt in errors if error is not None and spoilt]
    text = f"{function}: relative L2 {min(right):.3g} to {max(right):.3g}" if right else f"{function}: no run"
    return f"{text}; {len(wrong)} wrong layouts at least {min(wrong):.3g}" if wrong else text


def _count(log: ClaimLog, answer: dict[str, Any]) -> None:
    if "missing" in answer:
        log.not_run(
            f"AITER's {answer['function']}", f"this AITER lacks it, or it cannot be called: {answer['missing']}"
        )
        return
    if "failed" in answer:
        log.not_run("Triton runs after these", answer["failed"])
        return
    entry, function = f"recipes.{answer['recipe']}", answer["function"]
    case = f"{function}, {answer['recipe']} on {answer['arch']}"
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
        log.disagree(entry, case, "the layer's numbers", numbers + looks, SOURCE.format(function[9:]))

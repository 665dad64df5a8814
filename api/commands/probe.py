"""Test kernels on a golden MoE layer against a float64 reference.

The layer is small, deterministic and uneven, so that swapping gate and up, dropping a bias or halving the result cannot
pass. There is one for each quantization (--quantization): gpt-oss's MXFP4 with SwiGLU by default, MXFP4 and MXFP8,
fp8 in blocks of 128, by channel and by tensor, bf16, fp16, int4 in groups of 32 and by row, each with the activations
that the book has for it. What cannot be probed is refused with the reason: SiTUv2, whose formula is not recorded; SiLU
with a limit, whose clamp is not; a recipe for other entry points than the runner's; what the book has no recipe for.

Runners: aiter (AITER's fused_moe; needs ROCm), reference-laid-out (float64 through closed-form addresses; runs
anywhere), module:function (yours: f(tensors, decision, x, topk_ids, topk_weights) -> y). AITER's part was tested with
stand-ins; it has not run on a real AMD GPU yet.

Exit codes: 0 passed (warnings at most), 1 failed, 2 bad input, 3 the runner does not run here.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from preshuffle.api.commands.options.books import add_book_options, load_registry
from preshuffle.api.commands.options.failures import FAILED, OK, UNKNOWN, UsageError, needs_extra
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.screens.screen import Screen, print_json
from preshuffle.api.commands.screens.table import Cell, Column

if TYPE_CHECKING:
    from preshuffle.layouts.probe import ProbeReport, ProbeResult

_STYLES = {"pass": "good", "warn": "warn", "fail": "bad", "error": "bad"}
_SIZES = ("hidden_size", "intermediate_size", "num_experts", "top_k")
_MOST_TOKENS = 1 << 17


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--recipes", metavar="NAME,NAME", help="recipe ids or tags (default: all for the layer)")
    parser.add_argument(
        "--runner", metavar="RUNNER", default="aiter", help="aiter (default), reference or module:function"
    )
    parser.add_argument("--tokens", metavar="N,N", default="1,64,256,1024", help="token counts (default 1,64,256,1024)")
    parser.add_argument("--repeats", metavar="N", default="20", help="timed calls at most; 0 takes no time")
    parser.add_argument("--device", metavar="DEVICE", help="where module:function wants its tensors (default cpu)")
    group = parser.add_argument_group("the layer", "a small gpt-oss layer by default")
    group.add_argument(
        "--quantization", metavar="NAME", help="mxfp4, mxfp8, fp8-block, bf16, int4 …; a wrong one lists all"
    )
    group.add_argument("--activation", metavar="NAME", help="Silu, Gelu or Swiglu, where the book has a recipe for it")
    group.add_argument("--activation-dtype", metavar="DTYPE", help="what the checkpoint wants (fp4x2, fp8, bf16)")
    group.add_argument("--model", metavar="ID", help="whose structure, in small sizes")
    group.add_argument("--arch", metavar="GPU", help="for predictions; the machine's own, else gfx950")
    group.add_argument("--cu-num", metavar="N", help="compute units, for predictions")
    for name in _SIZES:
        group.add_argument(f"--{name.replace('_', '-')}", metavar="N")
    add_book_options(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Probe the recipes and show their errors side by side."""
    with needs_extra("preshuffle probe", "layouts"):
        from preshuffle.layouts.probe import ProbeError, choose_runner, golden_query, probe, select_recipes
    registry = load_registry(args)
    tokens = [_number("tokens", part, 1, _MOST_TOKENS) for part in args.tokens.split(",")]
    repeats = _number("repeats", args.repeats, 0, 10_000)
    try:
        chosen = choose_runner(args.runner, args.device, registry)
    except ProbeError as error:
        if args.runner != "aiter":
            raise
        print(f"preshuffle: {error}", file=sys.stderr)
        return UNKNOWN
    named = ("model", "activation", "activation_dtype", "cu_num", *_SIZES)
    fields: dict[str, Any] = {name: value for name in named if (value := getattr(args, name))}
    query = golden_query(args.arch or chosen.arch or "gfx950", args.quantization, **fields)
    recipes = select_recipes(args.recipes, registry, query)
    report = probe(
        chosen.runner,
        recipes,
        query,
        registry=registry,
        tokens=tokens,
        device=chosen.device,
        repeats=repeats,
        name=chosen.name,
        notes=chosen.notes,
    )
    if args.json:
        print_json(report)
    else:
        _show(report)
    return OK if report.verdict in ("pass", "warn") else FAILED


def _show(report: ProbeReport) -> None:
    screen = Screen.of_terminal()
    query = report.query
    sizes = f"hidden {query.hidden_size}, intermediate {query.intermediate_size}, {query.num_experts} experts"
    screen.line(f"{screen.paint(report.runner, 'bold')}  {sizes}, top {query.top_k}, {query.arch}")
    columns = [
        Column("tokens", right=True),
        Column("recipe", wraps=True),
        Column("acts"),
        Column("kernels, as predicted", wraps=True),
        Column("rel. L2", right=True),
        Column("cosine", right=True),
        Column("µs", right=True),
        Column("verdict"),
    ]
    results = sorted(report.results, key=lambda result: result.tokens)
    screen.table(columns, [_row(result) for result in results])
    for result in results:
        text = result.error or (result.looks_like and f"looks like: {result.looks_like}") or _halved(result)
        if text:
            screen.text(f"{result.recipe} at {result.tokens}: {text}", style="bad")
    for dtype in dict.fromkeys(result.activation_dtype or "" for result in results):
        if dtype in report.limits:
            limits = report.limits[dtype]
            screen.text(f"{dtype}: up to {limits.good:g} passes, up to {limits.fair:g} is a warning", style="dim")
    for note in report.notes:
        screen.text(note, style="warn")
    screen.line(screen.paint(report.verdict, _STYLES[report.verdict]))
    screen.show()


def _row(result: ProbeResult) -> tuple[str | Cell, ...]:
    return (
        str(result.tokens),
        Cell(result.recipe, "name"),
        result.activation_dtype or "unknown",
        (result.kernel or "unknown").replace(" + ", "\n"),
        "-" if result.relative_l2 is None else f"{result.relative_l2:.2e}",
        "-" if result.cosine is None else f"{result.cosine:.6f}",
        "-" if result.microseconds is None else f"{result.microseconds:,.0f}",
        Cell(result.verdict, _STYLES[result.verdict]),
    )


def _halved(result: ProbeResult) -> str | None:
    if result.verdict != "fail" or result.scale is None or result.cosine is None or result.cosine < 0.9:
        return None
    return f"right but for its size: {result.scale:.3g} times what it should be"


def _number(name: str, text: str, least: int, most: int) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise UsageError(f"probe: --{name} {text!r}; valid: {least}..{most}")
    return int(text)

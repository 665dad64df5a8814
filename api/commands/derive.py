"""Derive the layouts that a kernel reads, without a GPU.

The kernel runs on a CPU, instruction by instruction, on tensors whose elements carry their own position in memory.
From the output follows which byte every (expert, gate or up, row, k) is read from; no layout is assumed. That is
compared with every layout of the book, and with what the book claims about the kernel. Where no layout fits, the einops
line that would is printed. The numbers are relative L2 against float64 with the tensor in each layout.

KERNEL is the kernel's name in AITER's tables, the stem of a code object's name, or a file. Known are the assembly
kernels of fused MoE: stage 1 (per-token fp8 and int8, block scales) and both stages in one (these, MXFP4, no
quantization); and of an AITER with FlyDSL, which compiles them on the CPU: flydsl_moe1, flydsl_moe2, flydsl_mxmoe.

Exit codes: 0 the book agrees, 1 it disagrees, 2 bad input, 3 not all was derived or claimed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from preshuffle.api.commands.options.books import add_book_options, load_registry
from preshuffle.api.commands.options.failures import FAILED, OK, UNKNOWN, UsageError, needs_extra
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.screens.layout_report import picture_of
from preshuffle.api.commands.screens.layout_view import show_picture
from preshuffle.api.commands.screens.screen import Screen, print_json
from preshuffle.api.commands.screens.table import Cell, Column
from preshuffle.registry import Layout

if TYPE_CHECKING:
    from preshuffle.layouts.derive import KernelDerivation, RoleDerivation

_STYLES = {"agrees": "good", "disagrees": "bad", "unclaimed": "warn", "not derived": "warn"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("kernel", metavar="KERNEL", help="a kernel's name, a code object's stem, or a file")
    parser.add_argument(
        "--aiter", metavar="DIR", default="installed", help="checkout or unpacked wheel (default: the installed one)"
    )
    parser.add_argument("--arch", metavar="GPU", help="gfx942 or gfx950, where both have the kernel")
    parser.add_argument("--role", action="append", metavar="ROLE", help="w13_weight, w2_weight_scale …; repeatable")
    parser.add_argument("--no-numbers", action="store_true", help="addresses only")
    flydsl = parser.add_argument_group("FlyDSL kernels, what the call decides")
    flydsl.add_argument(
        "--gate-mode", choices=("separated", "interleave"), default="separated", help="of mxmoe stage 1"
    )
    flydsl.add_argument("--activation", choices=("silu", "swiglu", "situv2"), default="silu", help="of stage 1")
    flydsl.add_argument("--bias", action="store_true", help="add a bias in stage 1")
    for name, of in (("--hidden-pad", "model_dim"), ("--intermediate-pad", "inter_dim")):
        flydsl.add_argument(name, metavar="N", type=int, default=0, help=f"columns of {of} that are padding")
    flydsl.add_argument("--save", metavar="FILE", type=Path, help="write the MLIR, for derive FILE without flydsl")
    add_book_options(parser, tables=False)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Derive a kernel's layouts and compare them with the book."""
    with needs_extra("preshuffle derive", "proofs"):
        from preshuffle.layouts.derive import BuildOptions, FlydslKernel, KernelDeriver, open_kernel
    options = BuildOptions(
        args.gate_mode,
        args.activation,
        args.bias,
        hidden_pad=args.hidden_pad,
        intermediate_pad=args.intermediate_pad,
    )
    kernel = open_kernel(args.kernel, args.aiter, args.arch, options)
    if args.save is not None:
        if not isinstance(kernel, FlydslKernel):
            raise UsageError(f"derive: --save writes MLIR, and {kernel.name} is a code object")
        kernel.file.write(args.save)
    deriver = KernelDeriver(kernel, load_registry(args).book)
    result = deriver.derive(args.role, numbers=not args.no_numbers, progress=_progress)
    if args.json:
        print_json(result)
    else:
        _show(result)
    verdicts = {role.verdict for role in result.roles.values()}
    if "disagrees" in verdicts:
        return FAILED
    return OK if verdicts == {"agrees"} else UNKNOWN


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        print(line, file=sys.stderr)


def _show(result: KernelDerivation) -> None:
    screen = Screen.of_terminal()
    screen.line(f"{screen.paint(result.kernel, 'bold')}  {result.arch}")
    sizes = result.sizes
    pairs = [
        ("sha256", result.sha256),
        ("called as", f"{result.family} (the book's {result.book_family or 'families do not know the name'})"),
        ("layer", f"{sizes['experts']} experts, {sizes['inter_dim']} columns, {sizes['model_dim']} wide"),
    ]
    pairs += [(name, value) for name, value in (("AITER", result.aiter), ("compiled by", result.compiler)) if value]
    screen.pairs(pairs)
    if not result.machine_code:
        text = (
            f"{result.compiler} makes no machine code of it: LLVM has no instruction for an operation on {result.arch}."
        )
        screen.text(text, style="warn")
    if result.not_modelled:
        names = ", ".join(f"{name} ({count})" for name, count in result.not_modelled.items())
        screen.text(f"Not derived: the emulator does not model {names}.", style="bad")
    columns = [Column("role"), Column("layout"), Column("book"), Column("bytes", right=True), Column("verdict")]
    screen.table(columns, [_row(name, role) for name, role in result.roles.items()])
    for name, role in result.roles.items():
        _show_role(screen, name, role)
    if result.pairs:
        screen.heading("w13 and its scales, both interleaved")
        screen.text(f"relative L2: {_errors(result.pairs)}")
    screen.show()


def _row(name: str, role: RoleDerivation) -> tuple[str | Cell, ...]:
    if role.how == "numbers":
        return Cell(name, "name"), role.layout or "not one", role.claimed or "", "by numbers", _verdict(role)
    derived = f"{role.derived:,} of {role.bytes:,}" + (f", {role.conflicts:,} conflicts" if role.conflicts else "")
    layout = " = ".join((role.layout, *role.others)) if role.layout else "none of the book"
    return Cell(name, "name"), layout, role.claimed or "", derived, _verdict(role)


def _verdict(role: RoleDerivation) -> Cell:
    return Cell(role.verdict, _STYLES[role.verdict])


def _show_role(screen: Screen, name: str, role: RoleDerivation) -> None:
    screen.heading(name, f"read through {role.through}" if role.through else "")
    if role.pattern is not None:
        screen.text(f'pattern: "{role.pattern}"')
    elif role.how == "numbers":
        screen.text("by numbers alone: the kernel may skip what is padding, which then has no address")
    elif not role.conflicts:
        screen.text("no einops line gives these addresses")
    if role.tried:
        screen.text(f"relative L2: {_errors(role.tried)}")
    if role.pattern is not None and role.shape is not None:
        _show_picture(screen, name, role.pattern, role.shape)


def _show_picture(screen: Screen, name: str, pattern: str, shape: tuple[int, int, int]) -> None:
    layout = Layout.of("derived", pattern, "group" if name.endswith("_scale") else "byte")
    run, picture = picture_of(layout.bind(*shape))
    show_picture(screen, run, picture, shape[1] // 2 if layout.pattern.splits_gate_up else None)


def _errors(tried: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {error:.4f}" for name, error in sorted(tried.items(), key=lambda item: item[1]))

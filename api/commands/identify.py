"""Identify the layout of live bytes by sampling.

CHECKPOINT is a Hugging Face folder or a safetensors file with the plain tensors. DUMP is a safetensors file (or a
folder of them) whose tensors have roles' names, or a file of bare bytes with --shape and --dtype. Without --role, every
role that both sides hold is identified. At most a megabyte is read for each, whatever their size.

Where experts of one tensor lie in different layouts it says which experts are in which, by their numbers in the dump.

Behind its routed experts a rank may have slots: a fused shared expert, which is compared with the checkpoint's, or
empty ones. They are found where the checkpoint has a shared expert, or where --engine or --num-experts tells of them.

Exit codes: 0 every tensor is identified and right, 1 one is wrong (its experts differing is), 2 bad input, 3 one is
unknown or ambiguous.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from preshuffle.api.commands.options.books import add_book_options, load_registry
from preshuffle.api.commands.options.failures import FAILED, OK, UNKNOWN, UsageError, needs_extra
from preshuffle.api.commands.options.parser import add_json, nearest
from preshuffle.api.commands.screens.screen import Screen, print_json
from preshuffle.api.commands.screens.table import Cell, Column
from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.base.words import ROLES, Role, RowOrder

if TYPE_CHECKING:
    from preshuffle.layouts.forensics import ExpertRange, Identification

_STYLES = {"identified": "good", "mixed": "bad", "wrong": "bad", "ambiguous": "warn", "unknown": "warn"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--plain", metavar="CHECKPOINT", required=True, help="the checkpoint's bytes")
    parser.add_argument("--live", metavar="DUMP", required=True, help="the bytes to identify")
    parser.add_argument("--role", metavar="ROLE", help=", ".join(ROLES))
    parser.add_argument("--layer", metavar="N", default="0", help="which layer (default 0)")
    parser.add_argument("--plain-tensor", metavar="NAME", help="the checkpoint's tensor, where its name does not tell")
    parser.add_argument("--live-tensor", metavar="NAME", help="the dump's tensor, where its name does not tell")
    parser.add_argument("--shape", metavar="E,ROWS,K", help="of bare bytes, as torch would show it")
    parser.add_argument("--dtype", metavar="DTYPE", default="uint8", help="of bare bytes (default uint8)")
    group = parser.add_argument_group("what is known", "found out where it is not given")
    group.add_argument("--tp", metavar="N", help="tensor-parallel size")
    group.add_argument("--ep", metavar="N", help="expert-parallel size")
    group.add_argument("--tp-rank", metavar="N", help="the rank that the dump should be of")
    group.add_argument("--ep-rank", metavar="N", help="likewise")
    group.add_argument("--engine", metavar="NAME@VERSION", help="whose dump it is: it tells how many slots a rank has")
    group.add_argument(
        "--num-experts",
        metavar="N",
        help="experts of the layer as the engine holds it: the routed ones and the slots of all ranks",
    )
    group.add_argument("--gate-up-order", metavar="WORD", help="row order of w13 in the checkpoint: GGUU, GUGU")
    add_book_options(parser, tables=False)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Identify the dump's tensors and show the result."""
    if args.role is not None and args.role not in ROLES:
        raise UsageError(f"identify: unknown role {args.role!r}{nearest(args.role, ROLES)}; valid: {', '.join(ROLES)}")
    known = {name: _number(args, name, 1) for name in ("tp", "ep", "num_experts")}
    known |= {name: _number(args, name, 0) for name in ("tp_rank", "ep_rank")}
    for size, rank in (("tp", "tp_rank"), ("ep", "ep_rank")):
        if known[rank] is not None and known[size] is not None and known[rank] >= known[size]:  # type: ignore[operator]
            raise UsageError(f"identify: --{rank.replace('_', '-')} {known[rank]}; valid: 0..{known[size] - 1}")  # type: ignore[operator]
    shape, order = _shape(args.shape), _order(args.gate_up_order)
    layer = _number(args, "layer", 0) or 0
    for option in ("plain", "live"):
        _check_readable(option, getattr(args, option))
    with needs_extra("preshuffle identify", "layouts"):
        from preshuffle.layouts.forensics import TensorLocation, identify_files
    registry = load_registry(args)
    found = identify_files(
        TensorLocation(Path(args.plain), args.plain_tensor),
        TensorLocation(Path(args.live), args.live_tensor, shape, args.dtype),
        role=args.role,
        layer=layer,
        registry=registry,
        gate_up_order=order,
        engine=args.engine,
        **known,
    )
    if args.json:
        print_json(found.tensors[args.role] if args.role else found)
    else:
        _show(found.tensors)
    if any(one.faults for one in found.tensors.values()):
        return FAILED
    return OK if all(one.verdict == "identified" for one in found.tensors.values()) else UNKNOWN


def _check_readable(option: str, path: str) -> None:
    """Refuse a file that cannot be read, before torch is imported.

    Raises:
        QueryError: names the option and why.
    """
    try:
        os.scandir(path).close() if os.path.isdir(path) else open(path, "rb").close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise QueryError([FieldProblem(f"--{option} {path}", f"cannot be read: {reason}")]) from None


def _show(tensors: dict[Role, Identification]) -> None:
    screen = Screen.of_terminal()
    columns = [
        Column("tensor"),
        Column("verdict"),
        Column("its bytes are", wraps=True),
        Column("size", right=True),
        Column("read", right=True),
    ]
    screen.table(columns, [_row(role, found) for role, found in tensors.items()])
    for role, found in tensors.items():
        screen.heading(role, _verdict(found))
        screen.table([Column(), Column(wraps=True)], list(_facts(found)))
        if found.experts:
            columns = [Column("experts"), Column("their bytes are", wraps=True), Column("sampled", right=True)]
            screen.table(columns, [_experts(one) for one in found.experts])
        if found.slots:
            columns = [Column("slot", right=True), Column("holds"), Column("", wraps=True)]
            screen.table(columns, [(str(one.number), one.holds, one.name) for one in found.slots])
        if found.nearest:
            rows = [(near.name, f"{near.places:.0%}", f"{near.bytes:.0%}") for near in found.nearest]
            screen.table(
                [Column("nearest", wraps=True), Column("places", right=True), Column("bytes", right=True)], rows
            )
    screen.show()


def _verdict(found: Identification) -> str:
    return "wrong" if found.faults and found.verdict != "mixed" else found.verdict


def _experts(one: ExpertRange) -> tuple[Cell | str, ...]:
    numbers = str(one.first) if one.first == one.last else f"{one.first} to {one.last}"
    return Cell(numbers, "name"), one.name, f"{one.looked} of {one.last - one.first + 1}"


def _row(role: Role, found: Identification) -> tuple[Cell | str, ...]:
    verdict = _verdict(found)
    return (
        Cell(role, "name"),
        Cell(verdict, _STYLES[verdict]),
        found.name,
        _size(found.nbytes),
        _size(found.bytes_read),
    )


def _facts(found: Identification) -> Iterator[tuple[str, Cell | str]]:
    for fault, fix in zip(dict.fromkeys(found.faults), found.fixes, strict=True):
        yield "wrong", Cell(fault, "bad")
        yield "fix", Cell(fix, "bold")
    if found.gate_mode and not found.faults:
        yield "needs", f"gate_mode={found.gate_mode}"
    if found.read_as:
        yield "rows", f"taken from the checkpoint as {found.read_as}"
    if found.pad_fill is not None:
        yield "pads", found.pad_fill if found.pad_fill == "mixed" else f"0x{found.pad_fill:02x}"
    if found.also:
        yield "the same as", "; ".join(found.also)
    if len(found.candidates) > 3:
        yield "may be", "; ".join(found.candidates)
    if found.places and found.verdict != "unknown":
        yield "agree", f"{found.compared} bytes at {found.places} places; by chance 1 in 10^{-found.log10_chance:.0f}"
        yield "unseen", f"what differs in less than {found.blind_spot:.1%} of the bytes"
    tried = f"{found.hypotheses} explanations"
    yield "tried", tried + (f", {found.untested} of them not to the end" if found.untested else "")


def _size(nbytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes / 1e3:.0f} KB"


def _number(args: argparse.Namespace, name: str, least: int) -> int | None:
    text = getattr(args, name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= 1 << 20:
        raise UsageError(f"identify: --{name.replace('_', '-')} {text!r}; valid: a number from {least} on")
    return int(text)


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not 2 <= len(parts) <= 4 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"identify: --shape {text!r}; valid: E,ROWS,K, for example 128,6144,1536")
    return tuple(map(int, parts))


def _order(text: str | None) -> str | None:
    if text is not None and text not in get_args(RowOrder):
        raise UsageError(f"identify: --gate-up-order {text!r}; valid: {', '.join(get_args(RowOrder))}")
    return text

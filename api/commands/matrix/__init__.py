"""Show which models resolve on which GPUs.

Exit codes: 0 at least one model resolves, 1 none does, 2 bad input.
"""

from __future__ import annotations

import argparse

from preshuffle.api.commands.options.books import add_book_options, load_registry
from preshuffle.api.commands.options.failures import FAILED, OK
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.screens.screen import Screen, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--engine", metavar="NAME@VERSION", help="the engine of every cell (else AITER's own advice)")
    parser.add_argument("--aiter", metavar="VERSION", help="AITER's version (else the newest known)")
    parser.add_argument("--tp", metavar="N", help="tensor-parallel size (1)")
    parser.add_argument("--model", default="", metavar="TEXT", help="only models whose id has this in it")
    parser.add_argument("--arch", default="", metavar="GPU", help="only this GPU, by any of its names")
    add_book_options(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compute and show the matrix."""
    from preshuffle.registry.matrix import matrix_of, matrix_query, narrowed

    registry = load_registry(args)
    query = matrix_query(registry, {name: getattr(args, name) for name in ("engine", "aiter", "tp")})
    matrix = narrowed(matrix_of(registry, query), registry, args.model, args.arch)
    if args.json:
        print_json(matrix)
    else:
        from preshuffle.api.commands.matrix.view import show_matrix

        screen = Screen.of_terminal()
        show_matrix(screen, matrix, every_gpu=bool(args.arch))
        screen.show()
    cells = (cell for row in matrix.models for cell in row.cells)
    return OK if any(cell.outcome == "resolved" for cell in cells) else FAILED

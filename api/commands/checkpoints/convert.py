"""Convert a laid-out checkpoint for other ranks, GPUs or engines.

Its source is not needed.

What is not given stays as it was: --tp 4 alone changes the ranks. NEW is what preshuffle apply makes of the checkpoint.
Tensors of which laying out lost something that the new decision needs are refused by name, before anything is written.
Files that stay as they are are linked where that is possible.

Exit codes: 0 done, 1 no recipe, 2 bad input, OUT is damaged, or something cannot be converted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from preshuffle.api.commands.checkpoints.apply import add_workers, show_manifest, workers_of
from preshuffle.api.commands.checkpoints.progress_line import ProgressLine
from preshuffle.api.commands.options.books import add_book_options, load_registry
from preshuffle.api.commands.options.failures import OK, needs_extra
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.options.query_options import add_query_fields, given_fields, named_by_option
from preshuffle.registry.base.errors import QueryError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("out", metavar="OUT", help="the laid-out checkpoint")
    parser.add_argument("new", metavar="NEW", help="the folder to write")
    add_workers(parser)
    parser.add_argument("--allow", action="append", metavar="CODE", default=[], help="lay out despite this finding")
    add_query_fields(parser, config=False)
    add_book_options(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, and show what was written."""
    with needs_extra("preshuffle convert", "layouts"):
        from preshuffle.layouts.laid_out import convert_laid_out
    registry = load_registry(args)
    fields = given_fields(args, registry)
    line = ProgressLine(json=args.json)
    try:
        manifest = convert_laid_out(
            Path(args.out),
            Path(args.new),
            registry=registry,
            workers=workers_of(args),
            allow=args.allow,
            listener=line,
            **fields,
        )
    except QueryError as error:
        raise named_by_option(error, fields) from None
    finally:
        line.clear()
    show_manifest(manifest, args.new, as_json=args.json)
    return OK

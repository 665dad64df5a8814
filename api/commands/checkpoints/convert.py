"""Convert a laid-out checkpoint for other ranks, GPUs or engines.

Its source is not needed.

What is not given stays as it was: --tp 4 alone changes the ranks. NEW is what preshuffle apply makes of the checkpoint.
Tensors of which laying out lost something that the new decision needs are refused by name, before anything is written.
Files that stay as they are are linked where that is possible. --executor ray gives the work to a Ray cluster whose
machines see OUT and NEW at the same paths, one layer at a time to each processor.

Exit codes: 0 done, 1 no recipe, 2 bad input, OUT is damaged, or something cannot be converted.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from preshuffle.api.commands.checkpoints.executors import add_executor_options, executor_of
from preshuffle.api.commands.checkpoints.writing import add_writing_options, run_writing
from preshuffle.api.commands.options.failures import needs_extra


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("out", metavar="OUT", help="the laid-out checkpoint")
    parser.add_argument("new", metavar="NEW", help="the folder to write")
    add_executor_options(parser)
    add_writing_options(parser, run, given="those by which OUT was made")


def run(args: argparse.Namespace) -> int:
    """Convert, and show what was written."""
    with needs_extra("preshuffle convert", "layouts"):
        from preshuffle.layouts.laid_out import convert_laid_out
    with executor_of(args) as executor:
        write = partial(convert_laid_out, Path(args.out), Path(args.new), executor=executor)
        return run_writing(args, args.new, write)

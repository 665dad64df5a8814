"""Lay a whole checkpoint out ahead, once, for every rank.

CHECKPOINT is a Hugging Face folder with safetensors; OUT is a folder that gets one safetensors file per layer and rank,
under the names of the engine's parameters, an index for each rank, and a manifest. Tensors that are no experts' are
copied as they are (--no-others leaves them out).

Killed at any moment, the same command resumes. A file appears under its name when it is whole, and manifest.json when
all of them are: without it OUT is unfinished, and nothing reads it. What decides the bytes (checkpoint, decision,
ranks, names) is a key in every file and in the manifest; it is compared wherever they are used.

--json prints events, one JSON document a line: started, resumed, advanced, file, finished, and then the result.

Exit codes: 0 done, 1 no recipe, 2 bad input, a damaged checkpoint or a full disk.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from preshuffle.api.commands.checkpoints.writing import add_writing_options, run_writing
from preshuffle.api.commands.options.failures import needs_extra


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a Hugging Face folder with safetensors, or its address: s3://…, gs://…, hf://… (extra: remote)",
    )
    parser.add_argument("out", metavar="OUT", help="the folder to write")
    parser.add_argument("--no-others", action="store_true", help="leave out tensors that are no experts'")
    parser.add_argument(
        "--keep",
        choices=("scales", "all", "none"),
        default="scales",
        help="which of the experts' tensors are kept as they are, too, where laid-out bytes do not restore them "
        "(default: scales; all keeps weights, too)",
    )
    add_writing_options(parser, run)


def run(args: argparse.Namespace) -> int:
    """Lay the checkpoint out and show what was written."""
    with needs_extra("preshuffle apply", "layouts"):
        from preshuffle.layouts.laid_out import lay_out_checkpoint
    write = partial(lay_out_checkpoint, args.checkpoint, Path(args.out), others=not args.no_others, keep=args.keep)
    return run_writing(args, args.out, write)

"""Lay a whole checkpoint out ahead, once, for every rank.

CHECKPOINT is a Hugging Face folder with safetensors; OUT is a folder that gets one safetensors file per layer and rank,
under the names of the engine's parameters, an index for each rank, and a manifest. Tensors that are no experts' are
copied as they are (--no-others leaves them out).

Killed at any moment, the same command resumes. A file appears under its name when it is whole, and manifest.json when
all of them are: without it OUT is unfinished, and nothing reads it. What decides the bytes (checkpoint, decision,
ranks, names) is a key in every file and in the manifest; it is compared wherever they are used.

Several machines that see CHECKPOINT and OUT at the same paths share the work. --executor ray gives it to a Ray cluster,
which repeats what a lost node had begun. Without a cluster, --index I --of N writes one of N shares: start N processes,
at once or one after the other, and the one that finds all shares written finishes. In a Kubernetes Indexed Job --of N
is enough. What is written is the same, byte for byte, whoever writes it.

--json prints events, one JSON document a line: started, resumed, advanced, file, finished, and then the result.

Exit codes: 0 done, 1 no recipe, 2 bad input, a damaged checkpoint or a full disk.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any, Final

from preshuffle.api.commands.checkpoints.executors import add_executor_options, check_executor_options, executor_of
from preshuffle.api.commands.checkpoints.writing import add_writing_options, run_writing
from preshuffle.api.commands.options.failures import UsageError, needs_extra

INDEX_VARIABLE: Final = "JOB_COMPLETION_INDEX"
"""Kubernetes sets it in the pods of an Indexed Job."""
_MOST_SHARES: Final = 100_000


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
    add_executor_options(parser)
    parser.add_argument("--of", metavar="N", help="write one of N shares alone, instead of everything")
    parser.add_argument("--index", metavar="I", help=f"which share, from 0 (default: ${INDEX_VARIABLE})")
    add_writing_options(parser, run, given="what the checkpoint's config.json says")


def run(args: argparse.Namespace) -> int:
    """Lay the checkpoint out and show what was written."""
    share = share_of(args)
    with needs_extra("preshuffle apply", "layouts"):
        from preshuffle.layouts.laid_out import Share, lay_out_checkpoint, lay_out_share
    options: dict[str, Any] = {"others": not args.no_others, "keep": args.keep}
    out = Path(args.out)
    if share is not None:
        return run_writing(args, args.out, partial(lay_out_share, args.checkpoint, out, Share(*share), **options))
    write = partial(lay_out_checkpoint, args.checkpoint, out, **options)
    with executor_of(args) as executor:
        return run_writing(args, args.out, partial(write, executor=executor))


def share_of(args: argparse.Namespace) -> tuple[int, int] | None:
    """Return index and number of the share to write, None for everything.

    Raises:
        UsageError: there is no such share, or options contradict each other.
    """
    check_executor_options(args)
    if args.of is None:
        if args.index is not None:
            raise UsageError("--index needs --of: how many shares there are")
        return None
    if args.executor != "threads":
        raise UsageError("--of and --executor ray exclude each other")
    count = _number("--of", args.of)
    name, text = ("--index", args.index) if args.index is not None else (INDEX_VARIABLE, os.environ.get(INDEX_VARIABLE))
    if text is None:
        raise UsageError(f"--of needs --index: which share; or {INDEX_VARIABLE} in the environment")
    index = _number(name, text)
    if not index < count:
        raise UsageError(f"{name} {text!r}; valid with --of {count}: 0..{count - 1}")
    return index, count


def _number(name: str, text: str) -> int:
    least = 1 if name == "--of" else 0
    if not (text.isascii() and text.isdigit() and least <= int(text) <= _MOST_SHARES):
        raise UsageError(f"{name} {text!r}; valid: {least}..{_MOST_SHARES}")
    return int(text)

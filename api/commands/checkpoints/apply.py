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
import json
from pathlib import Path
from typing import TYPE_CHECKING

from preshuffle.api.commands.checkpoints.progress_line import ProgressLine
from preshuffle.api.commands.options.books import add_book_options, load_registry
from preshuffle.api.commands.options.failures import OK, UsageError, needs_extra
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.options.query_options import add_query_fields, given_fields, named_by_option
from preshuffle.api.commands.screens.screen import Screen
from preshuffle.registry.base.errors import QueryError

if TYPE_CHECKING:
    from preshuffle.layouts.laid_out import Manifest

_MOST_WORKERS = 1024


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
    add_workers(parser)
    parser.add_argument("--allow", action="append", metavar="CODE", default=[], help="lay out despite this finding")
    add_query_fields(parser, config=False)
    add_book_options(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers``."""
    parser.add_argument("--workers", metavar="N", help="threads (default: as many as there are cores)")


def workers_of(args: argparse.Namespace) -> int | None:
    """Return how many threads are wanted; None for the default.

    Raises:
        UsageError: it is no number of threads.
    """
    text: str | None = args.workers
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MOST_WORKERS):
        raise UsageError(f"--workers {text!r}; valid: 1..{_MOST_WORKERS}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Lay the checkpoint out and show what was written."""
    with needs_extra("preshuffle apply", "layouts"):
        from preshuffle.layouts.laid_out import lay_out_checkpoint
    registry = load_registry(args)
    fields = given_fields(args, registry)
    line = ProgressLine(json=args.json)
    try:
        manifest = lay_out_checkpoint(
            args.checkpoint,
            Path(args.out),
            registry=registry,
            others=not args.no_others,
            keep=args.keep,
            workers=workers_of(args),
            allow=args.allow,
            listener=line,
            **fields,
        )
    except QueryError as error:
        raise named_by_option(error, fields) from None
    finally:
        line.clear()
    show_manifest(manifest, args.out, as_json=args.json)
    return OK


def show_manifest(manifest: Manifest, out: str, *, as_json: bool) -> None:
    """Show what a laid-out checkpoint holds."""
    size = sum(one.size for one in manifest.files())
    layers = sorted(layer for plan in manifest.plans for layer in plan.layers)
    recipes = sorted({plan.recipe for plan in manifest.plans})
    if as_json:
        result = {
            "out": out,
            "key": manifest.key,
            "recipes": recipes,
            "layers": layers,
            "tp": manifest.tp,
            "ep": manifest.ep,
            "files": sum(1 for _ in manifest.files()),
            "bytes": size,
        }
        print(json.dumps(result))
        return
    screen = Screen.of_terminal()
    screen.line(f"{screen.paint(out, 'bold')}  {size / 1e9:.2f} GB in {sum(1 for _ in manifest.files())} files")
    screen.pairs(
        [
            ("recipe", ", ".join(recipes)),
            ("layers", f"{len(layers)} of experts, {layers[0]} to {layers[-1]}"),
            ("ranks", f"tp {manifest.tp}, ep {manifest.ep}"),
            ("other tensors", f"in {len(manifest.others)} files" if manifest.complete else "left out"),
            ("key", manifest.key),
        ]
    )
    screen.show()

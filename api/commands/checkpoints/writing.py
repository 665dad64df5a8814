"""Options, run and result of the commands that write a laid-out checkpoint."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from preshuffle.api.commands.checkpoints.resumable import resumable
from preshuffle.api.commands.options.books import add_book_options, load_registry
from preshuffle.api.commands.options.failures import OK, UsageError
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.options.query_options import add_query_fields, given_fields, named_by_option
from preshuffle.api.commands.screens.screen import Screen
from preshuffle.registry.base.errors import QueryError

if TYPE_CHECKING:
    from preshuffle.layouts.laid_out import Manifest, RunEvent, ShareWritten
    from preshuffle.registry import Registry

_MOST_WORKERS = 1024


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


def add_writing_options(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], *, given: str
) -> None:
    """Add what decides how a checkpoint is laid out, and what runs.

    Args:
        parser: of the command.
        run: runs it.
        given: what says the fields of the query that no option does.
    """
    add_workers(parser)
    parser.add_argument("--allow", action="append", metavar="CODE", default=[], help="lay out despite this finding")
    add_query_fields(parser, config=False, given=given)
    add_book_options(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run_writing(args: argparse.Namespace, out: str, write: Callable[..., Manifest | ShareWritten]) -> int:
    """Write a laid-out checkpoint with progress, and show what it holds.

    Args:
        args: with the options of ``add_writing_options``.
        out: the folder, as it was given.
        write: gets registry, workers, allow, listener and the query's fields.
    """
    from preshuffle.layouts.laid_out import MANIFEST, ShareWritten

    registry = load_registry(args)
    fields = given_fields(args, registry)
    new: list[str] = []
    was_finished = os.path.isfile(os.path.join(out, MANIFEST))  # where it may not be read, too
    try:
        with resumable(json=args.json) as listener:

            def listen(event: RunEvent) -> None:
                listener(event)
                if event.event == "file":
                    new.append(str(event.file))

            written = write(registry=registry, workers=workers_of(args), allow=args.allow, listener=listen, **fields)
    except QueryError as error:
        raise named_by_option(error, fields) from None
    if isinstance(written, ShareWritten):
        show_share(written, out, as_json=args.json)
    else:
        show_manifest(written, out, registry, as_json=args.json, already=was_finished and not new)
    return OK


def show_share(written: ShareWritten, out: str, *, as_json: bool) -> None:
    """Show what one share holds, and what is missing."""
    share, files, missing = written.share, written.files, written.missing
    if as_json:
        print(json.dumps({"out": out, "index": share.index, "of": share.count, "files": files, "missing": missing}))
        return
    rest = f"{missing} files of other shares are missing; the process that writes the last of them finishes"
    print(f"{out}  share {share.index} of {share.count} is written, {files} files; {rest}")


def size_text(count: int) -> str:
    """Return a number of bytes in the decimal unit that fits.

    Example:
        >>> size_text(2_560_000_000), size_text(3_650_000)
        ('2.56 GB', '3.65 MB')
    """
    factor, unit = next((one for one in ((10**9, "GB"), (10**6, "MB")) if count >= one[0]), (1000, "kB"))
    return f"{count / factor:.2f} {unit}"


def show_manifest(manifest: Manifest, out: str, registry: Registry, *, as_json: bool, already: bool) -> None:
    """Show what a laid-out checkpoint holds, and why."""
    size = sum(one.size for one in manifest.files())
    layers = sorted(layer for plan in manifest.plans for layer in plan.layers)
    recipes = sorted({plan.recipe for plan in manifest.plans})
    reasons = list(dict.fromkeys(registry.resolve(plan.query).reason for plan in manifest.plans))
    if as_json:
        result = {
            "out": out,
            "key": manifest.key,
            "recipes": recipes,
            "reasons": reasons,
            "layers": layers,
            "tp": manifest.tp,
            "ep": manifest.ep,
            "files": sum(1 for _ in manifest.files()),
            "bytes": size,
        }
        print(json.dumps(result))
        return
    screen = Screen.of_terminal()
    done = "already laid out, " if already else ""
    files = sum(1 for _ in manifest.files())
    screen.line(f"{screen.paint(out, 'bold')}  {done}{size_text(size)} in {files} files")
    screen.pairs(
        [
            ("recipe", ", ".join(recipes)),
            ("layers", f"{len(layers)} of experts, {layers[0]} to {layers[-1]}"),
            ("ranks", f"tp {manifest.tp}, ep {manifest.ep}"),
            ("other tensors", f"in {len(manifest.others)} files" if manifest.complete else "left out"),
            *(("reason", reason) for reason in reasons),
            ("key", manifest.key),
        ]
    )
    screen.show()

"""Restore the checkpoint from what was laid out.

Shards get the names and the bytes that they had; each is compared with the digest that it had before it appears under
its name. What laying out lost (a negative zero where the GPU's fp8 has none, scales that became one) is refused by
name, unless it was kept: scales are, weights with preshuffle apply --keep all.

Exit codes: 0 done, 2 bad input, OUT is damaged, or something cannot be restored.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from preshuffle.api.commands.checkpoints.resumable import resumable
from preshuffle.api.commands.checkpoints.writing import add_workers, size_text, workers_of
from preshuffle.api.commands.options.failures import OK, needs_extra
from preshuffle.api.commands.options.parser import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("out", metavar="OUT", help="the laid-out checkpoint")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the folder to write")
    add_workers(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Restore the checkpoint."""
    with needs_extra("preshuffle restore", "layouts"):
        from preshuffle.layouts.laid_out import core_count, restore_checkpoint
    with resumable(json=args.json) as listener:
        manifest = restore_checkpoint(
            Path(args.out), Path(args.checkpoint), workers=workers_of(args) or core_count(), listener=listener
        )
    size = sum(source.size for source in manifest.sources)
    if args.json:
        print(json.dumps({"checkpoint": args.checkpoint, "files": len(manifest.sources), "bytes": size}))
    else:
        print(f"{args.checkpoint}  {size_text(size)} in {len(manifest.sources)} shards, byte for byte as they were")
    return OK

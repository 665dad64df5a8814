"""Rounds of shares at once, one of which is killed.

``python -m support.shares.rounds FOLDER OUT ROUNDS`` runs each of ``KINDS`` so often: three shares by as many
processes, the second of which kills itself at another step each time and is started again. What they leave must be what
an undisturbed run left, file by file. It prints how often a share was killed, by kind.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from preshuffle.layouts.laid_out import Share, lay_out_share
from preshuffle.registry import PreshuffleError, Registry
from support.shares import tagged_files
from support.tensors.laid_out import contents
from support.tensors.lay_out_process import FIELDS, count_steps

_COUNT = 3
_FIRST, _STRIDE = 12, 9
"""Steps at which the second share is killed: the first of them, and how far they lie apart."""
KINDS = {
    "local": ("{}/checkpoint", None, "out"),
    "remote": ("tagged://{}/checkpoint", None, "finished"),
    "finished": ("tagged://{}/checkpoint", "finished", "finished"),
    "changed": ("tagged://{}/changed", "finished", "wanted"),
}
"""Checkpoint, folder that is there before, and folder that is wanted."""


def start(checkpoint: str, out: Path, index: int, kill_at: int | None) -> int:
    """Write a share in a forked process; return its id.

    It kills itself at a step, if one is given.
    """
    child = os.fork()  # torch and the book are loaded once for all of them
    if child:
        return child
    try:
        if kill_at is not None:
            count_steps(kill_at)
        lay_out_share(checkpoint, out, Share(index, _COUNT), workers=1, **FIELDS)
    except PreshuffleError as error:
        print(f"share {index}: {error}", file=sys.stderr, flush=True)
        os._exit(2)
    os._exit(0)


def run_round(checkpoint: str, out: Path, kill_at: int) -> bool:
    """Run all shares, a killed one twice; return whether one was."""
    running = {start(checkpoint, out, index, kill_at if index == 1 else None): index for index in range(_COUNT)}
    killed = False
    while running:
        child, status = os.wait()
        index, code = running.pop(child), os.waitstatus_to_exitcode(status)
        if code == -signal.SIGKILL and not killed:
            killed = True
            running[start(checkpoint, out, index, None)] = index
        elif code:
            raise SystemExit(f"share {index}, killed at {kill_at}: ended with {code}")
    return killed


def main() -> None:
    """Run the rounds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("rounds", type=int)
    args = parser.parse_args()
    Registry.default()
    assert tagged_files.SCHEME  # is registered
    killed = dict.fromkeys(KINDS, 0)
    for kind, (checkpoint, before, after) in KINDS.items():
        wanted = contents(args.folder / after)
        for number in range(args.rounds):
            shutil.rmtree(args.out, ignore_errors=True)
            if before:
                shutil.copytree(args.folder / before, args.out)
            kill_at = _FIRST + _STRIDE * number
            killed[kind] += run_round(checkpoint.format(args.folder), args.out, kill_at)
            found = contents(args.out)
            wrong = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
            if wrong:
                raise SystemExit(f"{kind}, killed at {kill_at}: {', '.join(wrong)}")
    print(json.dumps(killed))


if __name__ == "__main__":
    main()

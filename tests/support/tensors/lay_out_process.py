"""Lay a checkpoint out in a process of its own, which a test kills.

``python -m support.tensors.lay_out_process CHECKPOINT OUT --at N`` kills itself (SIGKILL) at the N-th step of its work,
whatever that is: a write, a rename, a header. ``--shares M --at N`` writes M shares by as many processes at once, of
which the second kills itself; it prints the exit codes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from preshuffle.layouts.laid_out import Share, convert_laid_out, lay_out_checkpoint, lay_out_share, restore_checkpoint
from preshuffle.registry import PreshuffleError, Registry

FIELDS: dict[str, Any] = {"arch": "gfx950", "activation_dtype": "fp4x2", "tp": 2}
TASKS: dict[str, Any] = {
    "apply": partial(lay_out_checkpoint, workers=2, **FIELDS),
    "convert": partial(convert_laid_out, tp=4, workers=2),
    "restore": partial(restore_checkpoint, workers=2),
}
_TESTS = Path(__file__).parents[2]
_STEPS = ("pwrite", "fsync", "rename", "open", "close")


def lay_out_in_process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this module in a process of its own, with further environment variables."""
    command = [sys.executable, "-m", "support.tensors.lay_out_process", *map(str, arguments)]
    variables = {**os.environ, "PYTHONPATH": str(_TESTS), **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=variables, timeout=600)


def count_steps(last: int | None) -> list[int]:
    """Count calls of the operating system; kill the process at one of them."""
    counted = [0]

    def counting(function: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            counted[0] += 1
            if counted[0] == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **keywords)

        return call

    for name in _STEPS:
        setattr(os, name, counting(getattr(os, name)))
    return counted


def write_shares(checkpoint: str, out: str, count: int, last: int | None) -> list[int]:
    """Write shares by processes that run at once; the second is killed at a step. Return the exit codes."""
    children = []
    for index in range(count):
        child = os.fork()  # torch and the book are loaded once for all of them
        if child == 0:
            if index == 1:
                count_steps(last)
            lay_out_share(checkpoint, out, Share(index, count), workers=1, **FIELDS)
            os._exit(0)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def main() -> int:
    """Lay out; print how many steps there were."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("out")
    parser.add_argument("--at", type=int)
    parser.add_argument("--task", choices=TASKS, default="apply")
    parser.add_argument("--shares", type=int)
    args = parser.parse_args()
    if args.shares:
        Registry.default()
        print(json.dumps(write_shares(args.checkpoint, args.out, args.shares, args.at)))
        return 0
    steps = count_steps(args.at)
    try:
        TASKS[args.task](args.checkpoint, args.out)
    except PreshuffleError as error:
        print(error, file=sys.stderr)
        return 2
    print(steps[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())

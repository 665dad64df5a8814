"""Lay a checkpoint out in a process of its own, which a test kills.

``python -m support.tensors.lay_out_process CHECKPOINT OUT --at N`` kills itself (SIGKILL) at the N-th step of its work,
whatever that is: a write, a rename, a header.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import Any

from preshuffle.layouts.laid_out import lay_out_checkpoint
from preshuffle.registry import PreshuffleError

_STEPS = ("pwrite", "fsync", "rename", "open", "close")


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


def main() -> int:
    """Lay out; print how many steps there were."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("out")
    parser.add_argument("--at", type=int)
    args = parser.parse_args()
    steps = count_steps(args.at)
    try:
        lay_out_checkpoint(args.checkpoint, args.out, arch="gfx950", activation_dtype="fp4x2", tp=2, workers=2)
    except PreshuffleError as error:
        print(error, file=sys.stderr)
        return 2
    print(steps[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())

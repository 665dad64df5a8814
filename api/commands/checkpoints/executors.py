"""Options of who writes: threads, or a Ray cluster."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from preshuffle.api.commands.checkpoints.writing import workers_of
from preshuffle.api.commands.options.failures import UsageError

if TYPE_CHECKING:
    from preshuffle.layouts.laid_out import Executor


def add_executor_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--executor`` and ``--ray-address``."""
    parser.add_argument(
        "--executor",
        choices=("threads", "ray"),
        default="threads",
        help="who writes: threads of this process (default), or a Ray cluster (extra: ray; --workers are its tasks at "
        "once, by default what keeps its processors busy)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="of the Ray cluster: HOST:PORT, ray://HOST:PORT, or auto for this machine's (default: $RAY_ADDRESS, auto)",
    )


def check_executor_options(args: argparse.Namespace) -> None:
    """Check that the options fit each other.

    Raises:
        UsageError: they do not.
    """
    if args.ray_address is not None and args.executor != "ray":
        raise UsageError("--ray-address needs --executor ray")


def executor_of(args: argparse.Namespace) -> AbstractContextManager[Executor | None]:
    """Return the executor that is wanted; of None for threads.

    Raises:
        UsageError: see ``check_executor_options``, or of ``--workers``.
        LaidOutError: Ray is not installed.
    """
    check_executor_options(args)
    if args.executor != "ray":
        return nullcontext()
    from preshuffle.layouts.laid_out import RayExecutor

    return RayExecutor(args.ray_address, workers_of(args))

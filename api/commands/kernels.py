"""Predict the kernels that AITER picks, without AITER and without a GPU.

``predict`` reads one call per line (JSON Lines): a call, or an object whose "in" holds one. One JSON line comes out per
line that went in; a line that is wrong gives {"error": …, "line": n}, and exit code 2 in the end.
"""

from __future__ import annotations

import argparse

from preshuffle.api.commands.parser import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``predict``."""
    actions = parser.add_subparsers(required=True, metavar="(predict)")
    predicting = actions.add_parser("predict", help="one kernel choice per call", description=__doc__)
    predicting.add_argument("--calls", required=True, metavar="FILE", help="JSON Lines, - for stdin")
    predicting.add_argument("--aiter", metavar="VERSION", help="AITER's version, for calls that name none")
    predicting.add_argument(
        "--tables",
        action="append",
        metavar="PATH",
        help="kernel tables: a CSV, a folder like AITER's configs/, PATH@VERSION for one AITER, or auto for the "
        "installed one; repeatable (else $PRESHUFFLE_TABLES, ':' between)",
    )
    add_json(predicting)
    predicting.set_defaults(run=predict)


def predict(args: argparse.Namespace) -> int:
    """Predict every call of a file."""
    from preshuffle.api.commands.kernels_predict import predict_lines

    return predict_lines(args)

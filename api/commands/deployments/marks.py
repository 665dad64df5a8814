"""Changes of one deployment: silence, acknowledge, describe, forget."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from preshuffle.api.commands.options.failures import UsageError

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_OPPOSITES: Final = (("silence", "unsilence"), ("acknowledge", "unacknowledge"))
_SPAN: Final = re.compile(r"(\d{1,6})([mhdw])")


class Request(NamedTuple):
    """Request to the service, below the deployment's path."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    params: Mapping[str, int] | None = None


def add_mark_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("changes of the named deployment (a token that may change it: $PRESHUFFLE_TOKEN)")
    group.add_argument(
        "--silence",
        metavar="SPAN",
        help="silence it for 30m, 4h, 2d or 1w, or until a time (RFC 3339)",
    )
    group.add_argument("--unsilence", action="store_true", help="end its silence")
    group.add_argument("--acknowledge", action="store_true", help="acknowledge its state, until that changes")
    group.add_argument("--unacknowledge", action="store_true", help="withdraw the acknowledgement")
    group.add_argument("--note", metavar="TEXT", help="with --silence or --acknowledge: why")
    group.add_argument(
        "--set-label", metavar="KEY=VALUE", action="append", help="replace all its labels (repeat it; KEY= alone: none)"
    )
    group.add_argument("--set-owner", metavar="NAME", help="set its owner; empty: none")
    group.add_argument("--set-link", metavar="URL", help="set its dashboard or runbook; empty: none")
    group.add_argument("--forget", action="store_true", help="forget it, or --replica of it, until it reports again")
    group.add_argument("--replica", type=int, metavar="N", help="with --forget: this replica alone")


def requested_changes(args: argparse.Namespace, now: datetime | None = None) -> tuple[Request, ...]:
    """Return the requests that the options stand for.

    Raises:
        UsageError: a span of time is not one, or options do not go together.
    """
    requests = tuple(_requests(args, now or datetime.now(UTC)))
    if requests and not args.name:
        raise UsageError("deployments: name the deployment that is to be changed")
    for option, other in _OPPOSITES:
        if getattr(args, option) and getattr(args, other):
            raise UsageError(f"deployments: --{option} and --{other} exclude each other")
    if args.forget and len(requests) > 1:
        raise UsageError("deployments: --forget goes with no other change")
    if args.replica is not None and not args.forget:
        raise UsageError("deployments: --replica goes with --forget")
    if args.note is not None and not (args.silence or args.acknowledge):
        raise UsageError("deployments: --note goes with --silence or --acknowledge")
    if requests and args.db:
        raise UsageError("deployments: a store is only read by --db; changes need --server")
    return requests


def _requests(args: argparse.Namespace, now: datetime) -> Iterator[Request]:
    note = {"note": args.note} if args.note else {}
    description = _description(args)
    if description:
        yield Request("PATCH", "", description)
    if args.silence is not None:
        yield Request("PUT", "/silence", {"until": _until(args.silence, now).isoformat(), **note})
    if args.unsilence:
        yield Request("DELETE", "/silence")
    if args.acknowledge:
        yield Request("PUT", "/acknowledgement", note)
    if args.unacknowledge:
        yield Request("DELETE", "/acknowledgement")
    if args.forget:
        yield Request("DELETE", "", None, {} if args.replica is None else {"replica": args.replica})


def _description(args: argparse.Namespace) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if args.set_label is not None:
        values["labels"] = _labels(args.set_label)
    if args.set_owner is not None:
        values["owner"] = args.set_owner or None
    if args.set_link is not None:
        values["link"] = args.set_link or None
    return values


def _labels(texts: Sequence[str]) -> dict[str, str]:
    labels = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"deployments: --set-label {text!r}; valid: KEY=VALUE")
        labels[key] = value
    return labels


def _until(text: str, now: datetime) -> datetime:
    """Return when a silence ends.

    Raises:
        UsageError: it is neither a span of time nor a time.
    """
    span = _SPAN.fullmatch(text)
    try:
        if span:
            return now + timedelta(**{_UNITS[span[2]]: int(span[1])})
        until = datetime.fromisoformat(text)
        if until.tzinfo is not None:
            return until
    except (ValueError, OverflowError):
        pass
    raise UsageError(f"deployments: --silence {text!r}; valid: 30m, 4h, 2d, 1w, or a time such as 2026-12-01T08:00:00Z")

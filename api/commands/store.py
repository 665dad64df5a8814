"""Check, back up or restore a service's store.

A backup is taken while services run; `restore` wants the store for itself, and keeps the one that it replaces as
FILE.replaced. PostgreSQL has its own commands for both (pg_dump, pg_restore); `check` takes either.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from preshuffle.api.commands.options.failures import OK
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.screens.screen import print_json

if TYPE_CHECKING:
    from preshuffle.api.store import StoreFacts

DB: Final = "PRESHUFFLE_DB"
_DEFAULT: Final = "sqlite:///preshuffle.db"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``check``, ``backup`` and ``restore``."""
    actions = parser.add_subparsers(required=True, metavar="(check|backup|restore)")
    checking = actions.add_parser("check", help="what a store holds, its schema's version, and whether it is sound")
    saving = actions.add_parser("backup", help="copy a SQLite store to a new file, while services use it")
    saving.add_argument("file", metavar="FILE", type=Path, help="the copy; it must not exist")
    restoring = actions.add_parser("restore", help="replace a SQLite store by a backup, while no service uses it")
    restoring.add_argument("file", metavar="FILE", type=Path, help="the backup; it stays")
    for sub, run in ((checking, run_check), (saving, run_backup), (restoring, run_restore)):
        sub.add_argument("--db", metavar="URL", help=f"the store (default {_DEFAULT}, else ${DB})")
        add_json(sub)
        sub.set_defaults(run=run)


def run_check(args: argparse.Namespace) -> int:
    """Show what a store holds."""
    from preshuffle.api.store import inspect_store

    return _show(args, inspect_store(_url(args)))


def run_backup(args: argparse.Namespace) -> int:
    """Copy a SQLite store."""
    from preshuffle.api.store import back_up

    return _show(args, back_up(_url(args), args.file))


def run_restore(args: argparse.Namespace) -> int:
    """Replace a SQLite store by a backup."""
    from preshuffle.api.store import restore_backup

    facts, kept = restore_backup(_url(args), args.file)
    code = _show(args, facts)
    if kept is not None and not args.json:
        print(f"the store that it replaces is kept as {kept}")
    return code


def _url(args: argparse.Namespace) -> str:
    url: str = args.db or os.environ.get(DB) or _DEFAULT
    return url


def _show(args: argparse.Namespace, facts: StoreFacts) -> int:
    if args.json:
        print_json(facts)
        return OK
    later = (
        "" if facts.status == "current" else f"; preshuffle serve migrates it to {facts.newest_version} at its start"
    )
    held = f"{facts.deployments} deployments, {facts.replicas} replicas, {facts.history} changes"
    print(f"{facts.store}: sound, {held}; schema {facts.schema_version}{later}")
    return OK

"""Options and environment variables that select book and kernel tables."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

from preshuffle.api.commands.options.failures import UsageError
from preshuffle.api.overlay_files import filled_overlays
from preshuffle.api.table_files import VARIABLE, automatic_tables

if TYPE_CHECKING:
    from preshuffle.registry import Registry

BOOK: Final = "PRESHUFFLE_BOOK"
TABLES: Final = "PRESHUFFLE_TABLES"


def add_book_options(parser: argparse.ArgumentParser, *, tables: bool = True) -> None:
    """Add ``--book`` and, where wanted, ``--tables``."""
    group = parser.add_argument_group("registry")
    group.add_argument(
        "--book", action="append", metavar="DIR", help=f"overlay folder or file; repeatable (else ${BOOK}, ':' between)"
    )
    if tables:
        group.add_argument(
            "--tables",
            action="append",
            metavar="PATH",
            help=f"kernel tables: a CSV, a folder like AITER's configs/, PATH@VERSION for one AITER, or auto for what "
            f"AITER would read here (${VARIABLE}, else its own); repeatable (else ${TABLES}, ':' between)",
        )


def from_environment(name: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """Split a ``:``-separated environment variable into paths."""
    value = (os.environ if environment is None else environment).get(name, "")
    return [part for part in value.split(":") if part]


def chosen_book(args: argparse.Namespace) -> list[str]:
    """Return the overlays that options or environment name.

    Empty folders are left out.
    """
    given: list[str] | None = args.book
    return filled_overlays(from_environment(BOOK) if given is None else given)


def chosen_tables(args: argparse.Namespace) -> Literal["auto"] | list[str] | None:
    """Return the kernel tables that the options or the environment name.

    Raises:
        UsageError: ``auto`` stands beside paths.
    """
    given: Sequence[str] | None = getattr(args, "tables", None)
    paths = from_environment(TABLES) if given is None else list(given)
    if "auto" in paths:
        if len(paths) > 1:
            raise UsageError("tables: auto (the installed AITER's) cannot be combined with paths")
        return automatic_tables()
    return paths or None


def load_registry(args: argparse.Namespace) -> Registry:
    """Load the registry that options and environment select."""
    from preshuffle.registry import Registry

    return Registry.load(overlays=chosen_book(args), kernel_tables=chosen_tables(args))

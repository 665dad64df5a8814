"""Kernel tables of the command line, and findings on them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

from preshuffle.api.commands.options.books import chosen_tables
from preshuffle.api.commands.options.failures import UsageError
from preshuffle.registry.base.versions import InvalidVersionError, version_key
from preshuffle.registry.kernels import Families, Hazard, KernelChoice, KernelTables, packaged_families
from preshuffle.registry.values.finding import Finding

AUTO = "auto"


def load_tables(args: argparse.Namespace) -> KernelTables | None:
    """Load the tables that ``--tables`` or the environment names."""
    paths = chosen_tables(args)
    return None if paths is None else KernelTables.named(paths)


def one_side(text: str) -> tuple[str | None, KernelTables | None]:
    """Parse one side of a comparison into version and tables.

    The forms are ``PATH@VERSION``, ``PATH``, ``@VERSION`` and ``auto``.

    Raises:
        UsageError: the version is none.
        TableError: the tables cannot be used.
    """
    if text == AUTO:
        tables = KernelTables.from_installed_aiter()
        return tables.sets[0].version if tables.sets else None, tables
    if text.startswith("@"):
        try:
            version_key(text[1:])
        except InvalidVersionError as error:
            raise UsageError(f"{text!r}: {error}") from None
        return text[1:], None
    tables = KernelTables.load([text])
    return next((loaded.version for loaded in tables.sets), None), tables


def finding_of(hazard: Hazard) -> Finding:
    """Return a hazard as a finding."""
    return Finding.of(hazard.code, f"{hazard.source}: {hazard.message}", actual=hazard.source)


def hazard_findings(
    tables: KernelTables | None, choices: Iterable[KernelChoice], families: Families | None = None
) -> Iterator[Finding]:
    """Yield findings on the table rows that choices rest on.

    Without ``families``, kernels are those of the packaged book.
    """
    sources = {choice.source for choice in choices if choice.source}
    if tables is not None and sources:
        hazards = tables.hazards_by(families or packaged_families())
        yield from (finding_of(hazard) for hazard in hazards if hazard.source in sources)

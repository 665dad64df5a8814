"""Features found in AITER's sources, against the version table."""

from __future__ import annotations

import re
from collections.abc import Mapping

from preshuffle.layouts.conform.aiter_source import AiterSource
from preshuffle.layouts.conform.claim_log import ClaimLog
from preshuffle.registry.base.versions import on_the_way_to, version_key
from preshuffle.registry.entries import FeatureProbe
from preshuffle.registry.kernels import dispatch_book, is_newest
from preshuffle.registry.layer import probe_sources
from preshuffle.registry.loading import Book


def supposed_version(source: AiterSource, book: Book) -> str:
    """Return the newest version whose features the sources show best.

    It is used where the sources do not say their version.
    """
    seen = probe_sources(book, source.package)
    timeline = dispatch_book()
    known = {timeline.newest, *(entry.since for entry in timeline.timeline)}
    candidates = sorted(known, key=version_key, reverse=True)
    return min(candidates, key=lambda version: len(_contradicted(seen, book, version)))


def check_features(source: AiterSource, version: str, book: Book) -> ClaimLog:
    """Compare every feature that has a probe.

    Args:
        source: of which AITER.
        version: its version, or the supposed one.
        book: whose features.
    """
    log = ClaimLog()
    seen = probe_sources(book, source.package)
    beyond = source.version is None or is_newest(version)
    for name, entry in book.features.items():
        probe, found = entry.probe, seen.get(name)
        if probe is None:
            log.not_run(f"features.{name}", "the entry has no probe: nothing in the sources shows it")
        elif found is None:
            log.not_run(f"features.{name}", f"{probe.module} is not there or cannot be read")
        elif found == _claimed(book, name, version) or _is_open(book, name, version, beyond):
            log.agree()
        else:
            claim = f"since {entry.since}" + (f", until {entry.until}" if entry.until else "")
            there = f"{'has' if found else 'lacks'} {_looked_for(probe)}"
            log.disagree(
                f"features.{name}.since", f"AITER {version}", f"{entry.title}: {claim}", there, _line_of(source, probe)
            )
    return log


def _claimed(book: Book, name: str, version: str) -> bool:
    entry, key = book.features[name], version_key(version)
    ended = entry.until is not None and version_key(entry.until) <= key
    return version_key(entry.since) <= key and not ended


def _is_open(book: Book, name: str, version: str, beyond: bool) -> bool:
    """Return whether a build of this version may have the feature or not.

    Args:
        beyond: the sources may be newer than the version: what begins after every known release is then open.
    """
    entry = book.features[name]
    changes = [change for change in (entry.since, entry.until) if change is not None]
    if any(on_the_way_to(version, change) for change in changes):
        return True
    newest = version_key(dispatch_book().newest)
    return beyond and version_key(version) >= newest and any(version_key(change) > newest for change in changes)


def _contradicted(seen: Mapping[str, bool], book: Book, version: str) -> list[str]:
    return [
        name
        for name, found in seen.items()
        if found != _claimed(book, name, version) and not _is_open(book, name, version, True)
    ]


def _looked_for(probe: FeatureProbe) -> str:
    if probe.text is not None:
        return f"the text {probe.text!r} in {probe.module}"
    return f"{probe.module}.{probe.name}" + (f" with the parameter {probe.parameter}" if probe.parameter else "")


def _line_of(source: AiterSource, probe: FeatureProbe) -> str | None:
    """Return ``file:line`` of what a probe looks for, or the file alone."""
    parts = probe.module.split(".")[1:]
    places = [source.package.joinpath(*parts).with_suffix(".py"), source.package.joinpath(*parts, "__init__.py")]
    place = next((place for place in places if place.is_file()), None)
    if place is None:
        return None
    text = place.read_text(encoding="utf-8", errors="replace")
    pattern = re.escape(probe.text) if probe.text else rf"^\s*(?:def|class) {re.escape(str(probe.name))}\b"
    match = re.search(pattern, text, re.MULTILINE)
    name = source.relative(place)
    return f"{name}:{text.count(chr(10), 0, match.start()) + 1}" if match else name

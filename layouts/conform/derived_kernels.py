"""Layouts derived from prebuilt kernels, against the book's claims."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from preshuffle.layouts.conform.aiter_source import AiterSource
from preshuffle.layouts.conform.claim_log import ClaimLog
from preshuffle.layouts.conform.table_files import load_tables
from preshuffle.registry.kernels import TableError, dispatch_book
from preshuffle.registry.loading import Book

SAMPLE: Final = 6
_ARCH: Final = re.compile(r"gfx[0-9a-f]+")
_FLYDSL: Final = re.compile(r"flydsl_(?:moe[12](?:_layout)?_[a-z0-9]+_[a-z0-9]+|mxmoe_g\d_[a-z0-9]+)")
"""What names the kind of a FlyDSL kernel: stage, and dtypes of activations and weights."""


def check_kernels(
    source: AiterSource,
    book: Book,
    count: int | None = SAMPLE,
    progress: Callable[[int, int, str], None] = lambda done, all, name: None,
) -> ClaimLog:
    """Derive layouts from prebuilt kernels; compare them with the book.

    Args:
        source: of which AITER.
        book: whose claims.
        count: assembly kernels, and FlyDSL kernels, of as many families as there are; None for one of every kind.
        progress: called with kernels done, all kernels, and the next one's name.
    """
    log = ClaimLog()
    try:
        assembly, flydsl = _assembly(log, source, count), _flydsl(log, source, count)
    except ModuleNotFoundError as error:
        log.not_run("prebuilt kernels", f'{error.name} is missing: pip install "preshuffle[proofs]"')
        return log
    chosen: list[Path | str] = [*assembly, *flydsl]
    for number, kernel in enumerate(chosen):
        progress(number, len(chosen), kernel if isinstance(kernel, str) else kernel.stem)
        _derive(log, source, book, kernel)
    return log


def _assembly(log: ClaimLog, source: AiterSource, count: int | None) -> list[Path]:
    from preshuffle.layouts.derive import DeriveError, hsa_folder

    try:
        folder = hsa_folder(str(source.root))
    except DeriveError as error:
        log.not_run("prebuilt kernels", str(error))
        return []
    chosen = _chosen(folder, count)
    if not chosen:
        log.not_run("prebuilt kernels", f"{source.relative(folder)} holds no kernel of a family that can be derived")
    elif count is not None:
        log.note(f"{len(chosen)} of {len(_chosen(folder, None))} kinds of prebuilt kernels; --all derives all")
    return chosen


def _flydsl(log: ClaimLog, source: AiterSource, count: int | None) -> list[str]:
    """Return a FlyDSL kernel of each kind that the tables name."""
    try:
        tables = load_tables(source, source.version or dispatch_book().newest)
    except TableError as error:
        log.not_run("FlyDSL kernels", f"the tuned tables cannot be read: {error}")
        return []
    rows = tables.rows if tables else ()
    kinds: dict[str, str] = {}
    for name in sorted(
        {name for row in rows for name in (row.kernel1, row.kernel2)}, key=lambda name: (len(name), name)
    ):
        if found := _FLYDSL.match(name):
            kinds.setdefault(found[0], name)
    if kinds and find_spec("flydsl") is None:
        log.not_run(
            f"{len(kinds)} kinds of FlyDSL kernels", "FlyDSL compiles them and is not installed: pip install flydsl"
        )
        return []
    chosen = list(kinds.values())[:count]
    if len(chosen) < len(kinds):
        log.note(f"{len(chosen)} of {len(kinds)} kinds of FlyDSL kernels; --all derives all")
    return chosen


def _chosen(folder: Path, count: int | None) -> list[Path]:
    """Return one kernel of each kind and GPU that AITER can pick; the sample takes families in turn."""
    from preshuffle.layouts.derive import DeriveError, kind_of

    by_kind: dict[tuple[str, str], dict[tuple[str, object], Path]] = {}
    for path in sorted(folder.rglob("fmoe*.co")):
        try:
            kind = kind_of(path.stem)
        except DeriveError:
            continue
        arch = _ARCH.search(path.relative_to(folder).as_posix())
        if arch is not None and _in_a_table(path):
            by_kind.setdefault((kind.family.stage, kind.family.id), {}).setdefault((arch[0], kind), path)
    if count is None:
        return [path for kinds in by_kind.values() for path in kinds.values()]
    # smallest tiles first: a kernel of small tiles takes a second
    queues = [
        sorted(kinds.items(), key=lambda item: (item[0][1].tile_m * item[0][1].tile_n, item[0][0]))  # type: ignore[attr-defined]
        for _, kinds in sorted(by_kind.items())
    ]
    found: list[Path] = []
    for turn in range(max(map(len, queues), default=0)):
        found += [queue[turn][1] for queue in queues if turn < len(queue)]
    return found[:count]


def _in_a_table(path: Path) -> bool:
    """Return whether a list beside the code object names it: AITER can pick no other."""
    lists = list(path.parent.glob("*.csv"))
    return not lists or any(path.name in each.read_text(encoding="utf-8", errors="replace") for each in lists)


def _derive(log: ClaimLog, source: AiterSource, book: Book, kernel: Path | str) -> None:
    from preshuffle.layouts.derive import DeriveError, KernelDeriver, open_kernel
    from preshuffle.layouts.emulator import EmulatorError

    place = kernel if isinstance(kernel, str) else source.relative(kernel)
    try:
        opened = open_kernel(str(kernel), str(source.root))
        result = KernelDeriver(opened, book).derive(numbers=False)
    except (DeriveError, EmulatorError) as error:
        log.not_run(place, str(error))
        return
    if result.not_modelled:
        log.not_run(place, f"instructions that are not modelled: {', '.join(result.not_modelled)}")
        return
    wrong = {name: role for name, role in result.roles.items() if role.verdict == "disagrees"}
    for name, role in result.roles.items():
        if role.verdict == "not derived":
            log.not_run(f"{place}: {name}", f"{role.conflicts} of its elements have no address of their own")
        elif role.verdict == "unclaimed":
            log.note(f"{place}: the book claims nothing about {name}")
    if not wrong and any(role.verdict == "agrees" for role in result.roles.values()):
        log.agree()
    elif wrong:
        name, role = next(iter(wrong.items()))
        there = role.layout or role.pattern or "no einops line"
        log.disagree(
            f"kernel_families.{result.book_family}.variants",
            f"{result.kernel} on {result.arch}, {', '.join(wrong)}",
            f"{name} is read as {role.claimed}",
            f"{there}, {role.derived:,} of {role.bytes:,} bytes derived (sha256 {result.sha256[:12]})",
            place,
        )

"""Examination of this environment: a check per component, with its fix.

Nothing examined is imported into this process: distributions are read from their metadata, and torch is imported in a
child process. That matters most for AITER: without a GPU its import raises, and leaves half of its modules behind.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Literal

import preshuffle
from preshuffle.api.doctor.check import Check, DoctorReport
from preshuffle.api.doctor.installed import Installed
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import PreshuffleError
from preshuffle.registry.entries import FlagEntry
from preshuffle.registry.kernels import Families, KernelTables, TableError, packaged_families

AMD_AITER = "amd-aiter"
OTHER_AITER = "aiter"
_AMD_AITER_FILES = ("aiter/fused_moe.py", "aiter/ops/shuffle.py")
_TRITON_NAMES = ("triton", "triton-rocm", "pytorch-triton-rocm")


def examine(overlays: Sequence[str], tables: Literal["auto"] | Sequence[str] | None) -> DoctorReport:
    """Run all checks.

    Args:
        overlays: from the options or the environment.
        tables: kernel tables from the options or the environment.
    """
    from preshuffle.api.doctor.aiter_checks import check_features
    from preshuffle.api.doctor.extras import check_extras
    from preshuffle.api.doctor.torch_checks import check_torch

    installed = Installed.here()
    checks: list[Check] = []
    registry = _registry(overlays, checks)
    checks += _tables(tables, registry.book.families if registry else packaged_families())
    checks += check_torch(installed.version("torch"), registry)
    checks += _triton(installed)
    checks += check_aiter(installed)
    checks += check_features(registry.book) if registry else []
    checks += check_extras(installed)
    checks += check_switches(registry.book.flags, os.environ) if registry else []
    return DoctorReport(
        ok=not any(check.status == "problem" for check in checks),
        version=preshuffle.__version__,
        python=f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        checks=tuple(checks),
    )


def _registry(overlays: Sequence[str], checks: list[Check]) -> Registry | None:
    source = f" with {', '.join(overlays)}" if overlays else ""
    try:
        registry = Registry.load(overlays)
    except PreshuffleError as error:
        lines = str(error).splitlines()
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        checks.append(Check(name="registry", status="problem", detail=lines[0] + more, fix="preshuffle registry check"))
        return None
    counts = ", ".join(f"{len(entries)} {section}" for section, entries in registry.book.entries.items())
    checks.append(Check(name="registry", status="ok", detail=f"{counts}{source}, digest {_short(registry.digest)}"))
    return registry


def _tables(tables: Literal["auto"] | Sequence[str] | None, families: Families) -> Iterator[Check]:
    if tables is None:
        detail = "none given: predictions show AITER's choice without tuned rows"
        yield Check(name="kernel tables", status="info", detail=detail, fix="--tables auto, or PRESHUFFLE_TABLES")
        return
    try:
        loaded = KernelTables.named(tables)
    except TableError as error:
        yield Check(name="kernel tables", status="problem", detail=str(error))
        return
    hazards = loaded.hazards_by(families)
    warnings = f", {len(hazards)} warnings (preshuffle registry check)" if hazards else ""
    yield Check(
        name="kernel tables", status="ok", detail=f"{loaded.row_count} rows{warnings}, digest {_short(loaded.digest)}"
    )


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12]


def _triton(installed: Installed) -> Iterator[Check]:
    present = [f"{name} {version}" for name in _TRITON_NAMES if (version := installed.version(name))]
    if present:
        yield Check(name="triton", status="ok", detail=", ".join(present))
    else:
        yield Check(name="triton", status="info", detail="not installed: torch alone moves the weights")


def check_aiter(installed: Installed) -> Iterator[Check]:
    """Tell AMD's AITER from the unrelated PyPI distribution of its import name."""
    amd = installed.version(AMD_AITER)
    others = installed.distributions.get(OTHER_AITER, ())
    source_builds = [other for other in others if _is_amds(other)]
    unrelated = [other for other in others if not _is_amds(other)]
    if unrelated:
        beside = f"beside AMD's {AMD_AITER} {amd}, whose files it overwrites" if amd else "and AMD's AITER is not"
        detail = f"the unrelated distribution {OTHER_AITER} {unrelated[0].version} is installed, {beside}"
        reinstall = f"pip install --force-reinstall --no-deps {AMD_AITER}"
        yield Check(name="aiter", status="problem", detail=detail, fix=f"pip uninstall {OTHER_AITER} && {reinstall}")
    elif amd:
        yield Check(name="aiter", status="ok", detail=f"{AMD_AITER} {amd}")
    elif source_builds:
        yield Check(name="aiter", status="ok", detail=f"AMD's, {source_builds[0].version}, under its older name")
    else:
        detail = "AMD's AITER is not installed: nothing compares the layouts with AITER's own functions"
        yield Check(name="aiter", status="info", detail=detail, fix='pip install "preshuffle[aiter]"')


def _is_amds(distribution: metadata.Distribution) -> bool:
    if distribution.files is not None:
        return bool({str(path) for path in distribution.files} & set(_AMD_AITER_FILES))
    return any(os.path.isfile(str(distribution.locate_file(path))) for path in _AMD_AITER_FILES)


def check_switches(flags: Mapping[str, FlagEntry], environment: Mapping[str, str]) -> Iterator[Check]:
    """List the book's switches that are set, their readers and meanings."""
    for flag in flags.values():
        value = environment.get(flag.id)
        if value is None:
            continue
        reader = flag.owner if flag.released else f"no release of {flag.owner}"
        meaning = flag.values.get(value, flag.meaning)
        detail = f"{flag.id}={value}, read by {reader}: {meaning}"
        if flag.values and value not in flag.values:
            detail = f"{flag.id}={value} has no meaning for {reader}"
            fix = f"valid: {', '.join(flag.values)}"
            yield Check(name="switch", status="problem", detail=detail, fix=fix)
        else:
            yield Check(name="switch", status="ok" if flag.released else "warning", detail=detail)

"""Run of all kinds of claims over one AITER, and its report."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import preshuffle
from preshuffle.layouts.conform.aiter_source import AiterSource, open_aiter
from preshuffle.layouts.conform.claim_log import ClaimLog
from preshuffle.layouts.conform.derived_kernels import SAMPLE, check_kernels
from preshuffle.layouts.conform.dispatch import check_dispatch
from preshuffle.layouts.conform.engines.check_engine import check_engine
from preshuffle.layouts.conform.engines.engine_source import EngineSource, MissingEngine, find_engine
from preshuffle.layouts.conform.features import check_features, supposed_version
from preshuffle.layouts.conform.gpu_probe import check_probe
from preshuffle.layouts.conform.layout_bytes import check_bytes
from preshuffle.layouts.conform.moe_gemms import check_triton
from preshuffle.layouts.conform.table_files import check_tables
from preshuffle.registry import Registry
from preshuffle.registry.base.frozen import FrozenDict
from preshuffle.registry.values.conformance import CLAIMS, Claim, ClaimResult, ConformanceReport

Progress = Callable[[Claim, int, int, str], None]

_PACKAGES: Final = ("torch", "triton", "tinygrad")


@dataclass(frozen=True, slots=True)
class ConformOptions:
    """How much is run.

    Attributes:
        claims: kinds to run; all by default.
        calls: kernel choices; None for the whole grid.
        kernels: prebuilt kernels to derive; None for one of every kind.
        overlays: folders of the registry's overlays, for children that load the book themselves.
        engine: whose own conversions are run: ``NAME``, ``NAME@VERSION``, ``NAME@FOLDER`` or ``NAME@WHEEL``.
        layers: of those that engines convert; None for all.
    """

    claims: Collection[Claim] = tuple(CLAIMS)
    calls: int | None = None
    kernels: int | None = SAMPLE
    overlays: tuple[str, ...] = ()
    engine: str | None = None
    layers: Collection[str] | None = None

    @property
    def complete(self) -> bool:
        """Return whether no kind is a sample."""
        return self.calls is None and self.kernels is None and self.layers is None


def conform(
    aiter: str = "installed",
    registry: Registry | None = None,
    options: ConformOptions | None = None,
    progress: Progress = lambda kind, done, all, what: None,
) -> ConformanceReport:
    """Hold the book against an AITER, claim by claim.

    Args:
        aiter: ``installed``, a checkout's folder, or a wheel file.
        registry: whose book; the packaged one by default.
        options: how much is run.
        progress: called with the kind, cases done, all cases and what comes next.

    Raises:
        ConformError: there is no such AITER, or it cannot be one.

    Example:
        >>> conform("/src/aiter").summary()  # doctest: +SKIP
        '23 of 23 features, 141 of 141 byte cases, 4,936 of 4,936 kernel choices, …'
    """
    registry, options = registry or Registry.default(), options or ConformOptions()
    with open_aiter(aiter) as source, _engine(options.engine) as engine:
        version = source.version or supposed_version(source, registry.book)
        claims: dict[Claim, ClaimResult] = {}
        for kind in CLAIMS:
            if kind in options.claims and (kind != "engine" or engine is not None):
                progress(kind, 0, 0, "")
                log = _run(kind, source, version, registry, options, engine, progress)
                claims[kind] = _without_paths(log.result(), source)
        return ConformanceReport.of(
            preshuffle=preshuffle.__version__,
            registry_digest=registry.digest,
            aiter=source.build(version),
            engine=engine.name if engine is not None and "engine" in claims else None,
            machine=machine(),
            claims=FrozenDict(claims),
            complete=options.complete and {*claims, "engine"} >= set(CLAIMS),
        )


def _engine(named: str | None) -> AbstractContextManager[EngineSource | MissingEngine | None]:
    return nullcontext() if named is None else find_engine(named)


def _run(
    kind: Claim,
    source: AiterSource,
    version: str,
    registry: Registry,
    options: ConformOptions,
    engine: EngineSource | MissingEngine | None,
    progress: Progress,
) -> ClaimLog:
    book = registry.book

    def step(done: int, all: int, what: str = "") -> None:
        progress(kind, done, all, what)

    match kind:
        case "features":
            return check_features(source, version, book)
        case "tables":
            return check_tables(source, version, book.families)
        case "bytes":
            return check_bytes(source, book, step)
        case "kernel_choices":
            return check_dispatch(source, version, book, options.calls, step)
        case "derived":
            return check_kernels(source, book, options.kernels, step)
        case "triton":
            return check_triton(source, book, step, options.overlays)
        case "engine":
            assert engine is not None
            return check_engine(engine, source, version, registry, options.layers, options.overlays, step)
        case "probe":
            return check_probe(source, registry, step, options.overlays)


def _without_paths(result: ClaimResult, source: AiterSource) -> ClaimResult:
    """Return a result that names no folder of this machine: a report may be sent to others."""
    text = result.model_dump_json()
    for folder, name in ((str(source.root), "AITER"), (str(Path.home()), "~"), (tempfile.gettempdir(), "TMP")):
        if len(folder) > 1:
            text = text.replace(f"{folder}/", f"{name}/").replace(folder, name)
    return ClaimResult.model_validate_json(text)


def machine() -> FrozenDict[str, str]:
    """Return what a report says of this machine: no names, no addresses."""
    found = {"system": f"{platform.system()} {platform.machine()}", "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = str(getattr(properties, "gcnArchName", properties.name)).partition(":")[0]
        found["rocm" if torch.version.hip else "cuda"] = str(torch.version.hip or torch.version.cuda)
    return FrozenDict(found)

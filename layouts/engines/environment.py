"""Observation of this process: GPU, libraries and environment."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import torch

from preshuffle.layouts.probe import aiter_here
from preshuffle.registry import Registry
from preshuffle.registry.base.limits import MAX_NAME, MAX_SWITCHES, MAX_VALUE
from preshuffle.registry.base.versions import InvalidVersionError, version_key
from preshuffle.registry.kernels import TableError
from preshuffle.registry.layer import why_unlisted
from preshuffle.registry.loading import Book

_ROCM_VERSION: Final = Path("/opt/rocm/.info/version")
_RELEASE: Final = re.compile(r"\d+(?:\.\d+)*")


def observe_here(
    *,
    engine: str | None = None,
    device: int = 0,
    environment: Mapping[str, str] | None = None,
    registry: Registry | None = None,
) -> dict[str, Any]:
    """Return what this process runs on, as fields of a ``Query``.

    ``arch`` and ``cu_num`` of a GPU of AMD's, ``aiter`` and ``aiter_features``, ``engine`` with its version, ``rocm``,
    and ``env``: only those variables that the book knows, or that look like a typing error of one. What is not there,
    or cannot be told, is left out.

    Args:
        engine: its name; None for the engine that this process has imported, if it is one only.
        device: number of the GPU.
        environment: of the process; ``os.environ`` by default.
        registry: whose book is meant; the packaged one by default.

    Example:
        >>> here = observe_here(environment={"ATOM_MOE_GUITLV": "1", "HOME": "/root", "SECRET": "x"})
        >>> here["env"]
        {'ATOM_MOE_GUITLV': '1'}
    """
    registry = registry or Registry.default()
    found: dict[str, Any] = {
        **_gpu(device),
        **_aiter(registry),
        "engine": _engine(registry.book, engine),
        "rocm": _rocm(),
        "env": switches_of(os.environ if environment is None else environment, registry.book),
    }
    return {name: value for name, value in found.items() if value is not None}


def switches_of(environment: Mapping[str, str], book: Book) -> dict[str, str]:
    """Return the book's switches, and typing errors of them, by name."""
    named = (name for name in sorted(environment) if name in book.flags or _is_meant(name, book))
    kept = [name for name in named if len(environment[name]) <= MAX_VALUE]
    return {name: environment[name] for name in kept[:MAX_SWITCHES]}


def _is_meant(name: str, book: Book) -> bool:
    return len(name) <= MAX_NAME and why_unlisted(name, book) is not None


def installed_engine(book: Book, name: str) -> str | None:
    """Return the version of an installed engine, or None."""
    entry = book.engines.get(name)
    if entry is None:
        return None
    try:
        version = metadata.version(entry.distribution or name)
    except metadata.PackageNotFoundError:
        module = sys.modules.get(entry.module or name)
        version = str(getattr(module, "__version__", ""))
    try:
        version_key(version)
    except InvalidVersionError:
        return None
    return version


def _engine(book: Book, name: str | None) -> str | None:
    loaded = [entry.id for entry in book.engines.values() if (entry.module or entry.id) in sys.modules]
    if name is None and len(loaded) == 1:
        name = loaded[0]
    if name is None:
        return None
    plain, at, version = name.partition("@")
    version = version if at else installed_engine(book, plain) or ""
    return f"{plain}@{version}" if version else plain


def _aiter(registry: Registry) -> dict[str, Any]:
    found = _installed_aiter(registry, tuple(sys.path), "aiter" in sys.modules)
    return {name: dict(value) if isinstance(value, dict) else value for name, value in found.items()}


# Process-wide: an AITER does not change under a running engine, and every layer of a model asks.
@lru_cache(maxsize=4)
def _installed_aiter(registry: Registry, _places: tuple[str, ...], _imported: bool) -> dict[str, Any]:
    try:
        return aiter_here(registry)
    except TableError:
        return {}


def _gpu(device: int) -> dict[str, Any]:
    if torch.version.hip is None or not torch.cuda.is_available() or device >= torch.cuda.device_count():
        return {}
    properties = torch.cuda.get_device_properties(device)
    arch = str(getattr(properties, "gcnArchName", "")).partition(":")[0]
    return {"arch": arch, "cu_num": int(properties.multi_processor_count)} if arch else {}


def _rocm() -> str | None:
    """Return ROCm's version: as installed, else the one that torch was built for."""
    if torch.version.hip is None:
        return None
    try:
        text = _ROCM_VERSION.read_text(encoding="utf-8")
    except (OSError, ValueError):
        # HIP's patch number is no release of ROCm; its first two numbers are
        text = ".".join(str(torch.version.hip).split(".")[:2])
    found = _RELEASE.match(text.strip())
    return found[0] if found else None

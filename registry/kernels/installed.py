"""Finds an installed AITER without importing it (importing needs a GPU and compiled modules)."""

from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from preshuffle.registry.kernels.errors import TableError

DISTRIBUTION = "amd-aiter"


def _package_folders() -> list[Path]:
    try:
        spec = find_spec("aiter")
    except (ImportError, ValueError):
        return []
    return [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []


def _holds_tables(folder: Path) -> bool:
    return (folder / "fused_moe.py").is_file() and (folder / "configs" / "tuned_fmoe.csv").is_file()


def installed_configs() -> tuple[Path, str | None]:
    """Return the ``configs`` folder of the installed AITER and its version.

    A source checkout on the path without distribution metadata has no version. The distribution ``aiter`` on PyPI is
    an unrelated package: what decides is that the package holds AITER's own files.

    Raises:
        TableError: No AITER is installed.
    """
    version: str | None = None
    folders = _package_folders()
    try:
        found = distribution(DISTRIBUTION)
        version = found.version
        folders.insert(0, Path(str(found.locate_file("aiter"))))
    except PackageNotFoundError:
        pass
    for folder in folders:
        if _holds_tables(folder):
            return folder / "configs", version
    if version is not None:
        raise TableError(DISTRIBUTION, f"{version} is installed but its aiter/configs/tuned_fmoe.csv is missing")
    if folders:
        raise TableError(str(folders[0]), f"is a package called aiter, but not AMD's: install {DISTRIBUTION}")
    raise TableError(DISTRIBUTION, "is not installed")

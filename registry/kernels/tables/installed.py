"""Location of the installed AITER, found without importing it.

Importing it needs a GPU and compiled modules.
"""

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


def installed_package() -> tuple[Path, str | None]:
    """Return the folder of the installed AITER and its version.

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
        if (folder / "fused_moe.py").is_file():
            return folder, version if folder == folders[0] else None
    if version is not None:
        raise TableError(DISTRIBUTION, f"{version} is installed but its aiter/fused_moe.py is missing")
    if folders:
        raise TableError(str(folders[0]), f"is a package called aiter, but not AMD's: install {DISTRIBUTION}")
    raise TableError(DISTRIBUTION, "is not installed")


def installed_configs() -> tuple[Path, str | None]:
    """Return the installed AITER's ``configs`` folder and version.

    Raises:
        TableError: No AITER is installed, or it has no tables.
    """
    folder, version = installed_package()
    if not (folder / "configs" / "tuned_fmoe.csv").is_file():
        raise TableError(
            DISTRIBUTION, f"{version or folder} is installed but its aiter/configs/tuned_fmoe.csv is missing"
        )
    return folder / "configs", version

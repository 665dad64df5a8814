"""Code objects of an AITER, found by kernel name."""

import re
from pathlib import Path

from preshuffle.layouts.derive.errors import AiterNotInstalledError, DeriveError, UnknownKernelError
from preshuffle.registry.kernels import TableError, installed_package

FOLDERS = ("aiter_meta/hsa", "hsa")
ARCHS = ("gfx942", "gfx950")
MANGLED = re.compile(r"_ZN5aiter\d+(.+)E")


def find_kernel(kernel: str, aiter: str = "installed", arch: str | None = None) -> Path:
    """Return the code object of a kernel.

    Args:
        kernel: a file, the stem of a file, or a kernel's name as AITER's tables have it.
        aiter: ``installed``, or a folder that holds ``hsa`` (a checkout) or ``aiter_meta/hsa`` (an unpacked wheel).
        arch: GPU, needed where both have a kernel of that name.

    Raises:
        DeriveError: there is no AITER, no such kernel, or more than one.
    """
    if Path(kernel).is_file():
        return Path(kernel)
    root = hsa_folder(aiter)
    mangled = MANGLED.fullmatch(kernel)
    stem = mangled[1] if mangled else kernel.removesuffix(".co")
    found = [path for name in ([arch] if arch else ARCHS) for path in sorted((root / name).rglob(f"{stem}.co"))]
    if not found:
        raise UnknownKernelError(f"{kernel} is no file, and {root} has no {stem}.co for {arch or ' or '.join(ARCHS)}")
    if len(found) > 1:
        places = ", ".join(str(path.relative_to(root)) for path in found)
        raise DeriveError(f"{kernel} is ambiguous, name the GPU (--arch) or the file: {places}")
    return found[0]


def hsa_folder(aiter: str = "installed") -> Path:
    """Return the folder with AITER's code objects, one sub-folder per GPU.

    Raises:
        AiterNotInstalledError: AMD's AITER is not installed.
        DeriveError: the folder has none.
    """
    root = aiter_root(aiter)
    for folder in FOLDERS:
        if (root / folder).is_dir():
            return root / folder
    raise DeriveError(f"{root} has none of {', '.join(FOLDERS)}: give the folder of a checkout or unpacked wheel")


def aiter_root(aiter: str = "installed") -> Path:
    """Return the folder that holds an AITER's package.

    That of a checkout or unpacked wheel, or of the installed package.

    Raises:
        AiterNotInstalledError: AMD's AITER is not installed.
    """
    return _installed() if aiter == "installed" else Path(aiter)


def _installed() -> Path:
    """Return the folder that holds AITER's package: of a checkout, or of an installed wheel."""
    try:
        return installed_package()[0].parent
    except TableError as error:
        raise AiterNotInstalledError(
            f"{error.source} {error.message}: pip install --no-deps amd-aiter, or --aiter DIR"
        ) from error

"""Where AITERs for the conformance tests lie; tests skip without them."""

import os
from pathlib import Path

import pytest

from preshuffle.registry.kernels import TableError, installed_package

TREE = "PRESHUFFLE_AITER_TREE"


def wheel_or_skip() -> Path:
    """Return the folder of the installed AITER's package."""
    try:
        return installed_package()[0]
    except TableError as error:
        pytest.skip(str(error))


def aiter_tree() -> Path:
    """Return a checkout that the environment names."""
    folder = Path(os.environ.get(TREE, ""))
    if not (folder / "aiter" / "fused_moe.py").is_file():
        pytest.skip(f"no checkout of AITER: {TREE} names none")
    if not (folder / "csrc").is_dir():
        pytest.skip(f"{TREE} holds no csrc/: it is no whole checkout")
    return folder

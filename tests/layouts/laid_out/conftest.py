"""A small checkpoint, and what an undisturbed run makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from preshuffle.layouts.laid_out import lay_out_checkpoint
from support.tensors.laid_out import checkpoint_with_others, contents
from support.tensors.lay_out_process import FIELDS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "checkpoint"
    checkpoint_with_others(folder)
    return folder


@pytest.fixture(scope="module")
def whole(checkpoint: Path) -> dict[str, bytes]:
    """What threads of one process write that nothing disturbs."""
    lay_out_checkpoint(checkpoint, checkpoint.parent / "whole", **FIELDS)
    return contents(checkpoint.parent / "whole")

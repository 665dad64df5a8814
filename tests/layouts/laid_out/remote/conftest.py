"""A server in the place of S3, and a checkpoint that is laid out from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from preshuffle.layouts.laid_out import lay_out_checkpoint
from support.tensors.laid_out import checkpoint_with_others
from support.tensors.lay_out_process import FIELDS


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    moto_server = pytest.importorskip("moto.server", reason="moto[s3,server] is not installed")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, and what an undisturbed run makes of it."""
    folder = tmp_path_factory.mktemp("local")
    checkpoint_with_others(folder / "checkpoint")
    lay_out_checkpoint(folder / "checkpoint", folder / "out", **FIELDS)
    return folder

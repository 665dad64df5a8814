"""``--tables auto`` means the same to the command line and the service."""

from pathlib import Path

import pytest

from preshuffle.api.app import load_registry
from preshuffle.api.settings import Settings
from support.aiter.kernel_rows import SEP, write


def test_the_service_reads_the_tables_that_aiter_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "p", {"token": "512", "kernelName1": SEP, "block_m": "32"})
    csv = next(Path(folder).rglob("*.csv"))
    monkeypatch.setenv("AITER_CONFIG_FMOE", str(csv))
    tables = load_registry(Settings(tables=("auto",))).tables
    assert tables is not None
    assert [row.source.rsplit(":", 1)[0] for row in tables.rows] == [str(csv)]

"""Library of kernel tables: its limit of rows, and two processes on one store."""

from __future__ import annotations

from pathlib import Path

import pytest

from preshuffle.api.answers import Answers
from preshuffle.api.app import create_app
from preshuffle.api.settings import Settings
from preshuffle.api.store import Store
from preshuffle.api.upkeep import KernelLibrary, kernel_library
from preshuffle.api.web import ProblemError
from preshuffle.registry import Registry
from support.aiter.kernel_rows import BASE, table
from support.service.server import Client
from support.service.stores import url_of

FUSED = {"tuned_fmoe.csv": table(BASE)}
GROUPED = {
    "tuned_grouped_fmoe.csv": b"token,model_dim,inter_dim,tile_m,kernelName1,kernelName2,us\n" + b"1,1,2,64,a,b,1\n" * 3
}


def library_on(url: str) -> KernelLibrary:
    return KernelLibrary(Store(url).create(), Answers(Registry(Registry.default().book)))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return url_of("sqlite", tmp_path)


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(kernel_library, "MAX_ALL_ROWS", 4)
    return 4


def refused(library: KernelLibrary, version: str, files: dict[str, bytes]) -> str:
    with pytest.raises(ProblemError) as caught:
        library.put(version, files, "tests")
    return f"{caught.value.kind}: {caught.value.detail}"


def test_grouped_rows_count_against_the_limit(url: str, limit: int) -> None:
    library = library_on(url)
    assert library.put("0.1.18", GROUPED, "tests")[1]
    message = refused(library, "0.1.19", GROUPED)
    assert message == f"tables-full: 3 rows are uploaded; 3 more would exceed the limit of {limit}"
    assert library.put("0.1.19", FUSED, "tests")[1]
    assert refused(library, "0.1.20", FUSED).startswith("tables-full: 4 rows are uploaded; 1 more")
    assert [upload.version for upload in library.uploads.values()] == ["0.1.18", "0.1.19"]


def test_stored_grouped_rows_count_after_a_restart(url: str, limit: int) -> None:
    library_on(url).put("0.1.18", {**FUSED, **GROUPED}, "tests")
    assert refused(library_on(url), "0.1.19", FUSED).startswith(f"tables-full: {limit} rows are uploaded; 1 more")


def test_grouped_rows_count_against_the_limit_over_http(url: str, limit: int) -> None:
    client = Client(create_app(Settings(db=url), Registry.default()))
    body = {name: data.decode() for name, data in GROUPED.items()}
    first = client.put("/v1/kernels/tables/0.1.18", json=body)
    assert (first.status_code, first.json()["rows"]) == (201, 3)
    refusal = client.put("/v1/kernels/tables/0.1.19", json=body)
    assert (refusal.status_code, refusal.json()["type"].rpartition(":")[2]) == (507, "tables-full")
    assert refusal.json()["detail"] == f"3 rows are uploaded; 3 more would exceed the limit of {limit}"
    assert client.get("/v1/kernels/tables/0.1.19").status_code == 404
    assert client.put("/v1/kernels/tables/0.1.18", json=body).status_code == 200


def test_tables_that_lost_a_race_are_not_published(url: str) -> None:
    first, second = library_on(url), library_on(url)
    winner, _ = first.put("0.1.20", FUSED, "tests")
    assert refused(second, "0.1.20", GROUPED).startswith("tables-exist")
    assert second.uploads == {}
    assert second.sync()
    upload = second.find("0.1.20")
    assert upload is not None
    assert (upload.digest, len(upload.tables.rows)) == (winner.digest, 1)

"""Kernel tables over HTTP: validated whole, kept for good, used for exactly their AITER, never changed."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from preshuffle.api.answers.answers import Answers
from preshuffle.api.app import create_app
from preshuffle.api.settings import Settings
from preshuffle.api.upkeep import kernel_library
from preshuffle.api.upkeep.kernel_library import MAX_BODY, MAX_ROWS
from preshuffle.api.web.problem import KINDS, URN
from preshuffle.registry import Decision, Query, Registry
from preshuffle.registry.kernels import KernelTables
from support.aiter.kernel_rows import BASE, NEW, SEP, SWIGLU, table
from support.computing import computed_within
from support.service.server import Client, running_server

CSV = {"Content-Type": "text/csv"}
FIELDS = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "fp4x2", "tokens": [300]}
PATH = "/v1/kernels/tables/0.1.20"


def rows(**row: str) -> bytes:
    return table({**BASE, **SWIGLU, "token": "512", "kernelName1": SEP, **row})


def service(folder: Path, tables: KernelTables | None = None) -> Client:
    registry = Registry(Registry.default().book, tables)
    return Client(create_app(Settings(db=f"sqlite:///{folder}/store.db"), registry))


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return service(tmp_path)


def decided(client: Client, aiter: str | None) -> tuple[Any, ...]:
    response = client.post("/v1/resolve", json={**FIELDS, "aiter": aiter} if aiter else FIELDS)
    assert response.status_code == 200, response.text
    (bucket,) = response.json()["kernels"]
    return bucket["tuned"], bucket["block_m"], bucket["source"]


def problem(response: httpx.Response, kind: str) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert (body["type"], response.status_code) == (URN + kind, KINDS[kind][0]), body
    return body


def test_an_upload_is_used_for_its_version_at_once(client: Client) -> None:
    assert decided(client, "0.1.20")[0] is None
    response = client.put(PATH, content=rows(), headers=CSV)
    assert response.status_code == 201, response.text
    view = response.json()
    assert (view["version"], view["rows"], view["hazard_count"]) == ("0.1.20", 1, 0)
    assert response.headers["etag"] == f'"{view["digest"]}"'
    assert decided(client, "0.1.20") == (True, 32, "tuned_fmoe.csv:2")
    assert decided(client, "v0.1.20.0") == (True, 32, "tuned_fmoe.csv:2")
    for other in ("0.1.19", "0.1.20.post1", None):
        assert decided(client, other)[0] is None, other


def test_the_tables_of_the_start_answer_for_all_other_versions(tmp_path: Path) -> None:
    started = KernelTables.from_bytes({"start.csv": rows(block_m="64")})
    client = service(tmp_path, started)
    assert decided(client, "0.1.20") == decided(client, None) == (True, 64, "start.csv:2")
    client.put(PATH, content=rows(block_m="128"), headers=CSV)
    assert decided(client, "0.1.20") == (True, 128, "tuned_fmoe.csv:2")
    assert decided(client, "0.1.19") == decided(client, None) == (True, 64, "start.csv:2")


def test_the_same_again_changes_nothing_and_other_content_is_refused(client: Client) -> None:
    first = client.put(PATH, content=rows(), headers=CSV)
    again = client.put("/v1/kernels/tables/v0.1.20", content=rows(), headers=CSV)
    assert (again.status_code, again.json()) == (200, first.json())
    other = client.put(PATH, content=rows(block_m="64"), headers=CSV)
    assert first.json()["digest"] in problem(other, "tables-exist")["detail"]
    assert decided(client, "0.1.20") == (True, 32, "tuned_fmoe.csv:2")
    same = client.put("/v1/kernels/tables/0.1.19", content=rows(), headers=CSV)
    assert (same.status_code, same.json()["digest"]) == (201, first.json()["digest"])


def test_several_files_are_read_in_aiters_order(client: Client) -> None:
    files = {
        "model_configs/b_tuned_fmoe.csv": rows(token="1024").decode(),
        "model_configs/a_tuned_fmoe.csv": rows(act_type="ActivationType.Silu", block_m="64").decode(),
        "tuned_fmoe.csv": rows(block_m="128").decode(),
    }
    view = client.put(PATH, json=files).json()
    names = ["tuned_fmoe.csv", "model_configs/a_tuned_fmoe.csv", "model_configs/b_tuned_fmoe.csv"]
    assert [file["name"] for file in view["files"]] == names
    assert [hazard["code"] for hazard in view["hazards"]] == ["ambiguous_key"]
    assert decided(client, "0.1.20")[1] == 128
    again = client.put(PATH, json=dict(reversed(files.items())))
    assert (again.status_code, again.json()) == (200, view)


def test_uploads_survive_a_restart(tmp_path: Path) -> None:
    before = service(tmp_path).put(PATH, json={"tuned_fmoe.csv": rows().decode()}).json()
    client = service(tmp_path)
    assert decided(client, "0.1.20") == (True, 32, "tuned_fmoe.csv:2")
    assert client.get(PATH).json() == before


def test_an_upload_survives_a_power_cut(tmp_path: Path) -> None:
    db = tmp_path / "store.db"
    with running_server(db) as server:
        assert httpx.put(server.url + PATH, content=rows(), headers=CSV).status_code == 201
        server.kill()
    with running_server(db) as server:
        assert httpx.get(server.url + PATH).json()["rows"] == 1


def test_the_listing_holds_tables_and_families_and_is_tagged(tmp_path: Path) -> None:
    client = service(tmp_path, KernelTables.from_bytes({"start.csv": rows()}, aiter="0.1.18"))
    first = client.get("/v1/kernels")
    tag = first.headers["etag"]
    assert client.get("/v1/kernels", headers={"If-None-Match": tag}).status_code == 304
    assert client.request("HEAD", "/v1/kernels").headers["etag"] == tag
    client.put(PATH, content=rows(), headers=CSV)
    second = client.get("/v1/kernels", headers={"If-None-Match": tag})
    assert second.status_code == 200
    listing = second.json()
    assert [(item["version"], item["uploaded_at"] is None) for item in listing["tables"]] == [
        ("0.1.20", False), ("0.1.18", True),
    ]  # fmt: skip
    family = next(item for item in listing["families"] if item["id"] == "flydsl_moe1")
    assert {"grammar", "variants", "ignores", "row_order"} <= set(family)
    client.put("/v1/kernels/tables/0.1.18", content=rows(block_m="64"), headers=CSV)
    assert [item["uploaded_at"] is None for item in client.get("/v1/kernels").json()["tables"]] == [False, False]


def test_the_registrys_listing_follows(client: Client) -> None:
    before = client.get("/v1/registry")
    client.put(PATH, content=rows(), headers=CSV)
    after = client.get("/v1/registry", headers={"If-None-Match": before.headers["etag"]})
    assert (before.json()["kernel_tables"], after.status_code) == (None, 200)
    assert after.json()["kernel_tables"].startswith("sha256:")


def test_what_was_not_uploaded_is_not_there(client: Client) -> None:
    assert "there are: none" in problem(client.get(PATH), "unknown-tables")["detail"]


VERSIONS = {
    "main": "invalid-input",
    "0.1.x": "invalid-input",
    "0.1." + "9" * 5000: "invalid-input",
    "0.1.%D9%A4%D9%A0": "invalid-input",
    "0.1.20%00": "invalid-input",
    "0.1.20%0A": "invalid-input",
    "%20": "invalid-input",
    "..%2F..%2Fetc%2Fpasswd": "not-found",
    "%2e%2e": "invalid-input",
    "0.1.20/x": "not-found",
}


@pytest.mark.parametrize("version", VERSIONS, ids=lambda text: text[:24])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_weird_versions_are_one_clear_problem(client: Client, method: str, version: str) -> None:
    more: dict[str, Any] = {"content": rows(), "headers": CSV} if method == "PUT" else {}
    body = problem(client.request(method, f"/v1/kernels/tables/{version}", **more), VERSIONS[version])
    if VERSIONS[version] == "invalid-input":
        assert [fault["field"] for fault in body["problems"]] == ["version"]


TABLES = {
    "empty": (b"", "tuned_fmoe.csv:1", "is empty"),
    "no rows": (NEW.encode() + b"\n", "tuned_fmoe.csv", "holds no row"),
    "cut": (rows()[:-200], "tuned_fmoe.csv:2", "columns and ends before"),
    "another table": (b"a,b\n1,2\n", "tuned_fmoe.csv:1", "lacks the columns"),
    "latin-1": (rows().replace(b"Swiglu", b"Swigl\xfc"), "tuned_fmoe.csv:2", "is not UTF-8"),
    "nan": (rows(token="nan"), "tuned_fmoe.csv:2", "column token: 'nan'"),
    "a formula": (rows(block_m="=1+1"), "tuned_fmoe.csv:2", "column block_m: '=1+1'"),
    "a null byte": (rows(kernelName1="fly\0dsl"), "tuned_fmoe.csv:2", "null byte"),
    "columns without end": (b",".join(b"c%d" % n for n in range(100_000)), "tuned_fmoe.csv:1", "a line of more than"),
    "cells without end": (NEW.encode() + b"\n" + b"," * (4 << 20), "tuned_fmoe.csv:2", "a line of more than"),
    "a row without end": (NEW.encode() + b"\n" + b'"\n",' * (1 << 17), "tuned_fmoe.csv:18", "a row of more than"),
    "rows without end": (b"\n" * (MAX_ROWS + 1000), "(whole)", "rows at most"),
    "returns without end": (b"\r" * (MAX_ROWS + 1000), "(whole)", "rows at most"),
}


@pytest.mark.parametrize(("body", "field", "message"), TABLES.values(), ids=TABLES)
def test_wrong_tables_are_one_located_problem_and_nothing_is_stored(
    client: Client, body: bytes, field: str, message: str
) -> None:
    response = computed_within(3, lambda: client.put(PATH, content=body, headers=CSV))
    (fault,) = problem(response, "invalid-input")["problems"]
    assert (fault["field"], message in fault["message"]) == (field, True), fault
    problem(client.get(PATH), "unknown-tables")
    assert decided(client, "0.1.20")[0] is None


NAMES = [
    "../tuned_fmoe.csv", "/etc/tuned_fmoe.csv", "a/b/tuned_fmoe.csv", "tuned_fmoe.csv\0", "untuned_fmoe.csv", "x.csv",
    "model_configs/../tuned_fmoe.csv", "tuned_fmoe.txt", "", "tuned" + "x" * 300 + ".csv", "tuned_fmoe.csv\n",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:24])
def test_names_that_aiter_would_not_load_are_refused(client: Client, name: str) -> None:
    (fault,) = problem(client.put(PATH, json={name: rows().decode()}), "invalid-input")["problems"]
    assert fault["message"].startswith("not the name of a kernel table")
    assert len(fault["field"]) < 120


@pytest.mark.parametrize(
    ("body", "headers", "kind"),
    [
        (b"{", {"Content-Type": "application/json"}, "malformed-json"),
        (b"", {"Content-Type": "application/json"}, "malformed-json"),
        (b'{"tuned_fmoe.csv": "\\ud800"}', {"Content-Type": "application/json"}, "malformed-json"),
        (b"[" * 200_000, {"Content-Type": "application/json"}, "json-too-deep"),
        (b"[]", {"Content-Type": "application/json"}, "invalid-input"),
        (b"{}", {"Content-Type": "application/json"}, "invalid-input"),
        (b'{"tuned_fmoe.csv": 1}', {"Content-Type": "application/json"}, "invalid-input"),
        (b'{"tuned_fmoe.csv": "a", "tuned_fmoe.csv": "b"}', {"Content-Type": "application/json"}, "invalid-input"),
        (json.dumps({f"tuned{n}.csv": "" for n in range(300)}).encode(), {"Content-Type": "application/json"},
         "invalid-input"),
        (b"x", {"Content-Type": "multipart/form-data"}, "unsupported-media-type"),
        (b"x", {}, "unsupported-media-type"),
        (gzip.compress(b"\n" * (64 << 20), mtime=0), {**CSV, "Content-Encoding": "gzip"}, "unsupported-media-type"),
        (b"x" * (MAX_BODY + 1), CSV, "body-too-large"),
        (b"x", {**CSV, "Content-Length": str(1 << 40)}, "body-too-large"),
    ],
    ids=str,
)  # fmt: skip
def test_bodies_that_are_no_upload_are_refused(client: Client, body: bytes, headers: dict[str, str], kind: str) -> None:
    problem(client.put(PATH, content=body, headers=headers), kind)


def test_more_rows_than_can_be_held_are_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_library, "MAX_ALL_ROWS", 1)
    assert client.put(PATH, content=rows(), headers=CSV).status_code == 201
    problem(client.put("/v1/kernels/tables/0.1.19", content=rows(), headers=CSV), "tables-full")
    assert client.put(PATH, content=rows(), headers=CSV).status_code == 200


def test_one_of_many_who_upload_at_once_wins(client: Client) -> None:
    bodies = [rows(block_m=str(size)) for size in (16, 32, 64, 128) * 3]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda body: client.put(PATH, content=body, headers=CSV), bodies))
    codes = [answer.status_code for answer in answers]
    assert (codes.count(201), codes.count(200), codes.count(409)) == (1, 2, 9)
    winner = bodies[codes.index(201)]
    assert [code != 409 for code in codes] == [body == winner for body in bodies]


def test_an_answer_of_an_earlier_registry_is_not_kept() -> None:
    class Slow(Registry):
        def resolve(self, query: Query, *, kernels: bool = True, nearest: bool = True) -> Decision:
            answers.replace(Registry.default())
            return super().resolve(query, kernels=kernels, nearest=nearest)

    answers = Answers(Slow(Registry.default().book))
    query = Query.parse(FIELDS)
    first = answers.get(query)
    assert answers.get(query) is not first
    assert answers.get(query) is answers.get(query)

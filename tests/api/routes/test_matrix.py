"""``/v1/matrix``: what it holds, what it refuses, and that it is computed and sent once."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl

import pytest

from preshuffle.api.answers import Answers, Matrices
from preshuffle.api.answers import matrices as matrices_module
from preshuffle.api.app import create_app
from preshuffle.api.cli import main
from preshuffle.api.settings import Settings
from preshuffle.registry import Registry
from preshuffle.registry.matrix import Matrix
from preshuffle.registry.values.query import Query
from support.service.server import Client

PATH = "/v1/matrix?engine=atom&tp=8&model=gpt-oss"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    store = tmp_path_factory.mktemp("store") / "store.db"
    return Client(create_app(Settings(db=f"sqlite:///{store}"), Registry.default()))


def test_it_is_sent_once(client: Client) -> None:
    first = client.get(PATH)
    tag = first.headers["etag"]
    assert first.status_code == 200
    again = client.get(PATH, headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get(PATH).content == first.content
    head = client.request("HEAD", PATH)
    assert (head.status_code, head.headers["etag"]) == (200, tag)
    other = client.get(PATH.replace("gpt-oss", "deepseek"), headers={"If-None-Match": tag})
    assert other.status_code == 200


def test_each_cell_is_the_query_of_its_decision(client: Client) -> None:
    matrix = Matrix.model_validate_json(client.get(PATH).content)
    cells = [cell for row in matrix.models for cell in row.cells if cell.arch in ("gfx942", "gfx950")]
    assert {cell.outcome for cell in cells} == {"resolved", "refused"}
    for cell in cells:
        answer = client.get(f"/v1/resolve?{cell.query}")
        assert (answer.status_code == 200) == (cell.outcome == "resolved")
        assert answer.json().get("recipe") == cell.recipe
        assert dict(parse_qsl(cell.query))["engine"] == "atom"


def test_the_command_prints_the_same(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "--engine", "atom", "--tp", "8", "--model", "gpt-oss", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == client.get(PATH).json()


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ("engine=vlm", "engine", "did you mean vllm"),
        ("engine=vllm&engine=atom", "engine", "given twice"),
        ("tp=0", "tp", "greater than"),
        ("tp=many", "tp", "integer"),
        ("aiter=newest", "aiter", "version"),
        ("arch=H100", "arch", "NVIDIA"),
        ("arch=MI300Z", "arch", "did you mean"),
        ("gpu=MI300X", "gpu", "unknown parameter"),
        (f"model={'x' * 200}", "model", "at most 128"),
    ],
)
def test_what_is_wrong_is_named(client: Client, query: str, field: str, words: str) -> None:
    answer = client.get(f"/v1/matrix?{query}")
    assert answer.status_code == 422
    (problem,) = answer.json()["problems"]
    assert problem["field"] == field
    assert words in problem["message"]


def test_it_is_computed_once_for_a_registry_and_again_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[tuple[Registry, Query]] = []

    def counted(registry: Registry, query: Query) -> Matrix:
        computed.append((registry, query))
        nothing = {"kernel_tables": None, "engine": None, "aiter": None, "gpus": (), "models": ()}
        return Matrix(registry_digest=registry.digest, tp=query.tp, **nothing)

    monkeypatch.setattr(matrices_module, "matrix_of", counted)
    answers = Answers(Registry.default())
    matrices = Matrices(answers)
    for fields in ({}, {"tp": "1"}, {"model": "deepseek", "arch": "MI300X"}):
        matrices.get(fields)
    assert len(computed) == 1
    matrices.get({"tp": "8"})
    matrices.get({"engine": "atom"})
    matrices.get({})
    assert [(query.engine and query.engine.name, query.tp) for _, query in computed[1:]] == [(None, 8), ("atom", 1)]
    answers.replace(Registry(Registry.default().book))
    matrices.get({})
    assert len(computed) == 4
    for size in range(1, 40):
        matrices.get({"tp": str(size)})
    matrices.get({"tp": "39"})
    assert len(computed) == 4 + 38
    matrices.get({"tp": "1"})  # the oldest made room
    assert len(computed) == 4 + 39

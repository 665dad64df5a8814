"""``preshuffle deployments`` and ``preshuffle plan``: against a running service, and against its store."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from preshuffle.api.cli import main
from preshuffle.api.store.store import Store
from support.service.server import OBSERVATION, running_server
from support.service.stores import put, report

WRONG = {**OBSERVATION, "applied": {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "gui16"}}}}
ROLLOUT = """
rules:
  test.rollout:
    when: {model: openai/gpt-oss-120b, arch: gfx950, activation_dtype: fp4x2, deployment: canary}
    use: mxfp4.gui16
    because: canaries go first
    evidence: [https://example.org/rollout]
"""


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('service')}/store.db"
    store = Store(url).create()
    canary = {**OBSERVATION, "query": {**OBSERVATION["query"], "deployment": "canary"}}
    put(store, "canary", 0, report(groups=[{"layers": "0-35", "observation": canary}]), who="ann")
    put(store, "wrong", 2, report(groups=[{"layers": "0", "observation": WRONG}]))
    store.close()
    return url


@pytest.fixture(scope="module", params=["--db", "--server"])
def where(request: pytest.FixtureRequest, db: str) -> Iterator[list[str]]:
    if request.param == "--db":
        yield ["--db", db]
        return
    with running_server(Path(db.removeprefix("sqlite:///"))) as server:
        yield ["--server", server.url]


def test_the_list(where: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    assert main(["deployments", *where]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["mismatch", "wrong"]
    assert "layout_mismatch" in "".join(lines)
    assert any(line.split()[:2] == ["ok", "canary"] for line in lines)
    assert lines[-1] == "2 deployments"
    assert main(["deployments", "--state", "ok,stale", "--json", *where]) == 0
    (only,) = json.loads(capsys.readouterr().out)["deployments"]
    assert (only["name"], only["state"]) == ("canary", "ok")


def test_one(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deployments", "wrong", *where]) == 1
    out = capsys.readouterr().out
    assert "replica 2 on n: mismatch" in out
    assert "Fix: " in out
    assert main(["deployments", "absent", *where]) == 1
    assert "no deployment is called 'absent'" in capsys.readouterr().err


def test_history(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deployments", "canary", "--history", *where]) == 0
    out = capsys.readouterr().out
    assert "ann" in out
    assert "— → ok" in out


def test_a_plan(where: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rollout.yaml").write_text(ROLLOUT)
    assert main(["plan", "--book", str(tmp_path), *where]) == 0
    out = capsys.readouterr().out
    assert "mxfp4.sep16 → mxfp4.gui16" in out
    assert "canaries go first" in out
    assert "0 worse, 0 better, 2 the same" in out
    assert "1 of 2 deployments would change" in out
    assert main(["plan", "--aiter", "0.1.7", "--deployments", "canary", "--json", *where]) == 1
    plan = json.loads(capsys.readouterr().out)
    assert (plan["aiter"], plan["deployments"], plan["items"][0]["after"]["verdict"]) == ("0.1.7", 1, "unsupported")


def test_a_wrong_candidate_names_file_and_line(db: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text("rules:\n  x: 5\n")
    assert main(["plan", "--book", str(tmp_path), "--db", db]) == 2
    assert f"{tmp_path}/bad.yaml:2:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["deployments"], 2, "name one service"),
        (["deployments", "--server", "http://127.0.0.1:9", "--db", "sqlite:///x.db"], 2, "name one service"),
        (["deployments", "--server", "http://127.0.0.1:9"], 3, "does not answer"),
        (["deployments", "--server", "nonsense"], 2, "http://"),
        (["deployments", "--db", "sqlite:////nowhere/x.db"], 2, "/nowhere does not exist"),
        (["deployments", "--db", "sqlite:///absent.db"], 2, "does not exist"),
        (["deployments", "a", "--state", "ok", "--server", "http://127.0.0.1:9"], 2, "--state filters the list"),
        (["plan", "--server", "http://127.0.0.1:9"], 2, "no candidate given"),
        (["plan", "--tables", "x.csv", "--server", "http://127.0.0.1:9"], 2, "names no AITER"),
        (["plan", "--book", "/nowhere", "--server", "http://127.0.0.1:9"], 2, "cannot be read"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str],
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("drips", [False, True], ids=["silent", "drips"])
def test_a_service_that_never_answers_is_given_up_in_all(drips: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" if drips else b"")
                while not ended.wait(0.05):
                    connection.sendall(b" " if drips else b"")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert main(["deployments", "--server", url, "--timeout", "0.4"]) == 3
        ended.set()
        thread.join()
    assert f"{url} does not answer: no whole response within 0.4 s" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon", "1e9"])
def test_a_timeout_is_a_number_of_seconds(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deployments", "--server", "http://127.0.0.1:9", f"--timeout={given}"]) == 2
    assert "--timeout" in capsys.readouterr().err

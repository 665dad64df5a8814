"""``preshuffle deployments``: filters and groups of the list, and changes of one deployment."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from preshuffle.api.cli import main
from preshuffle.api.commands.options import service_option
from preshuffle.api.store.store import Store
from support.service.server import OBSERVATION, running_server
from support.service.stores import put, report

WRONG = {**OBSERVATION, "applied": {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "gui16"}}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("service")
    store = Store(f"sqlite:///{folder}/store.db").create()
    put(store, "right", 0, report("n1", labels={"team": "x"}))
    put(store, "wrong", 0, report("n2", groups=[{"layers": "0", "observation": WRONG}]))
    put(store, "gone", 0, report("n3"))
    put(store, "gone", 1, report("n4"))
    store.close()
    with running_server(folder / "store.db") as running:
        yield running.url


def test_filters_orders_and_groups(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deployments", "--node", "n1,n2", "--sort=-name", "--json", "--server", server]) == 1
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["deployments"]] == ["wrong", "right"]
    assert main(["deployments", "--label", "team=x", "--server", server]) == 0
    assert "right" in capsys.readouterr().out
    assert main(["deployments", "--group-by", "node", "--server", server]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["n2", "1", "1", "mismatch"]
    assert "n4" in "".join(lines)
    assert main(["deployments", "--code", "layout_mismtch", "--server", server]) == 2


def test_silence_acknowledge_describe_and_forget(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--server", server]
    assert main(["deployments", "wrong", "--silence", "4h", "--note", "INC-7", *where]) == 0
    assert "INC-7" in capsys.readouterr().out
    assert main(["deployments", "wrong", "--unsilence", "--acknowledge", "--json", *where]) == 0
    view = json.loads(capsys.readouterr().out)
    assert (view["silence"], view["acknowledgement"]["note"]) == (None, "")
    assert main(["deployments", "right", "--set-label", "team=y", "--set-owner", "ann", "--json", *where]) == 0
    view = json.loads(capsys.readouterr().out)
    assert (view["labels"], view["owner"]) == ({"team": "y"}, "ann")
    assert main(["deployments", "gone", "--forget", "--replica", "1", "--json", *where]) == 0
    assert len(json.loads(capsys.readouterr().out)["replicas"]) == 1
    assert main(["deployments", "gone", "--forget", *where]) == 0
    assert "forgotten" in capsys.readouterr().out
    assert main(["deployments", "gone", *where]) == 1
    assert main(["deployments", "gonne", "--acknowledge", *where]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--silence", "4h"), "name the deployment"),
        (("a", "--silence", "soon"), "valid: 30m, 4h"),
        (("a", "--silence", "2026-12-01T08:00:00"), "valid: 30m, 4h"),
        (("a", "--replica", "1"), "--replica goes with --forget"),
        (("a", "--forget", "--acknowledge"), "--forget goes with no other change"),
        (("a", "--silence", "4h", "--unsilence"), "--silence and --unsilence exclude each other"),
        (("a", "--note", "x"), "--note goes with"),
        (("a", "--set-label", "team"), "KEY=VALUE"),
        (("a", "--node", "n1"), "--node filters the list"),
        (("a", "--forget", "--db", "sqlite:///none.db"), "only read"),
    ],
)
def test_options_that_do_not_go_together(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deployments", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_token_that_is_missing_or_unknown_is_told_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = {
        "type": "urn:preshuffle:problem:unauthorized",
        "title": "t",
        "status": 401,
        "detail": "d",
        "instance": "/",
    }
    answer = httpx.Response(401, json=problem, headers={"Content-Type": "application/problem+json"})
    monkeypatch.setattr(service_option, "_request_server", lambda *_: answer)
    for token, hint in ((None, "set $PRESHUFFLE_TOKEN to one"), ("psh_x", "it is that of $PRESHUFFLE_TOKEN")):
        monkeypatch.delenv("PRESHUFFLE_TOKEN", raising=False)
        if token:
            monkeypatch.setenv("PRESHUFFLE_TOKEN", token)
        assert main(["deployments", "a", "--silence", "4h", "--server", "http://127.0.0.1:9"]) == 3
        assert f"d; {hint}" in capsys.readouterr().err

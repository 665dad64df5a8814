"""Messages on wrong input: what each must say, and what it must not (``tests/tables/messages.yaml``)."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from preshuffle.api.cli import main
from preshuffle.api.store.store import Store
from support.service.stores import put, report
from support.source.yaml_files import read_yaml

TABLE = Path(__file__).parents[3] / "tables" / "messages.yaml"
ROWS: list[dict[str, Any]] = read_yaml(TABLE)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PRESHUFFLE_BOOK", "PRESHUFFLE_TABLES", "PRESHUFFLE_SERVER", "PRESHUFFLE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "400")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_a_message_says_what_helps(row: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in row.get("files", {}).items():
        Path(name).write_text(text)
    code = main(shlex.split(row["run"]))
    out, err = capsys.readouterr()
    text = out + err
    assert [part for part in row["says"] if part not in text] == [], text
    assert [part for part in row.get("silent", ()) if part in text] == [], text
    assert code == row["code"], text


def test_an_unknown_deployment_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    store = Store("sqlite:///store.db").create()
    for name in ("prod-a", "prod-b", "canary"):
        put(store, name, 0, report())
    store.close()
    for more in ([], ["--history"]):
        assert main(["deployments", "prodd-a", "--db", "sqlite:///store.db", *more]) == 1
        err = capsys.readouterr().err
        assert "no deployment is called 'prodd-a'; did you mean prod-a" in err
        assert "GET /v1" not in err
    assert main(["deployments", "zzzzzzz", "--db", "sqlite:///store.db"]) == 1
    assert "valid: canary, prod-a, prod-b" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become nobody")
def test_a_store_that_cannot_be_written_says_permission() -> None:
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        store = Store(f"sqlite:///{folder}/store.db").create()
        put(store, "prod-a", 0, report())
        store.close()
        message = as_nobody(f"sqlite:///{folder}/store.db")
    assert "store.db cannot be written: permission denied" in message
    assert "damaged" not in message


def as_nobody(url: str) -> str:
    """Open a store in a child process of another user; return the error's text."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        message = "opened"
        try:
            os.setuid(65534)
            Store(url).create()
        except BaseException as error:
            message = str(error)
        os.write(writer, message.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as file:
        return file.read()

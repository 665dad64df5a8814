"""Log of the service as an operator collects it: each line is JSON, its level and the client's address in it."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from preshuffle.api.cli import main
from preshuffle.api.log_lines import TextFormatter
from support.service.server import COMMAND, REPORT, environment, running_server
from support.service.tokens import Written, write_tokens


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def revoke(written: Written, keep: str) -> None:
    """Leave one role's token in the file; written as an editor does, in place."""
    lines = written.file.read_text().splitlines(keepends=True)
    written.file.write_text("".join(line for line in lines if "- {" not in line or f'"{keep}"' in line))


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_revoked_token_is_refused_at_once_and_every_line_is_json(tmp_path: Path) -> None:
    written, log = write_tokens(tmp_path / "tokens.yaml"), tmp_path / "log"
    settings = {"tokens": str(written.file), "reads": "closed", "toknes": "x", "xyz": "1", "port_80_tcp": "tcp://a"}
    options = ("--log", "json", "--log-level", "debug", "--management-port", "0")
    with running_server(tmp_path / "store.db", *options, stderr=log, **settings) as server:
        first = json.loads(server.line)
        assert (first["event"], first["level"], first["url"]) == ("start", "info", server.url)
        url, admin, reporter = f"{server.url}/v1/deployments/gpt-1", bearer(written.admin), bearer(written.report)
        assert httpx.put(url, json=REPORT, headers=admin).status_code == 201
        with httpx.stream("GET", f"{server.url}/v1/events", headers=admin) as stream:
            revoke(written, "report")
            assert httpx.put(url, json=REPORT, headers=admin).status_code == 401
            list(stream.iter_lines())  # it ends
        assert httpx.put(url, json=REPORT, headers=reporter | {"X-Forwarded-For": "10.1.2.3"}).status_code == 200
        assert httpx.delete(f"{server.url}/v1/deployments/llama", headers=reporter).status_code == 403

        written.file.write_text("tokens:\n  - {name: x, role: admin}\n")  # no hash: the last valid ones stay
        assert httpx.get(url, headers=reporter).status_code == 200
        problems = httpx.get(f"{server.url}/readyz").json()["token_problems"]
        assert problems[0].startswith(f"{written.file}:2:")
        beside = first["message"].split("management ")[1].rstrip(")")
        assert "preshuffle_tokens_loads 0.0" in httpx.get(f"{beside}/metrics").text
        assert "The tokens do not load" in httpx.get(server.url, headers=reporter).text

        written.file.write_text("tokens: []\n")
        assert httpx.get(url, headers=reporter).status_code == 401
        assert "token_problems" not in httpx.get(f"{server.url}/readyz").json()
        with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as other:
            other.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n")
            other.recv(4096)
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as other:
                other.sendall(b"\x16\x03\x01 no http\r\n\r\n")
                other.recv(4096)
        assert httpx.get(f"{beside}/v1/registry").status_code == 404
        assert server.stop() == 0
    lines = lines_of(log.read_text())
    refused = [line for line in lines if line.get("status") in (401, 403)]
    assert [(line["status"], line["level"], line["client"]) for line in refused] == [
        (401, "warning", "127.0.0.1"),
        (403, "warning", "127.0.0.1"),
        (401, "warning", "127.0.0.1"),
    ]
    garbage = [line for line in lines if line.get("problem") == "malformed-request"]
    assert 1 <= len(garbage) < 20  # a flood does not fill the log
    assert {(line["level"], line["client"]) for line in garbage} == {("warning", "127.0.0.1")}
    assert [line["level"] for line in lines if line["message"].startswith("the management port refused")] == ["warning"]
    assert [line["forwarded_for"] for line in lines if "forwarded_for" in line] == ["10.1.2.3"]
    messages = [line["message"] for line in lines]
    assert messages[:2] == [
        "nothing reads the environment variable PRESHUFFLE_TOKNES; did you mean PRESHUFFLE_TOKENS?",
        "nothing reads the environment variable PRESHUFFLE_XYZ; `preshuffle serve --help` names all",
    ]
    assert [line["level"] for line in lines if line["message"].startswith("the tokens were")] == [
        *("info", "error", "info")
    ]
    assert [line.get("event") for line in lines if "event" in line][-2:] == ["stopping", "stop"]
    assert "uvicorn.error" in {line["logger"] for line in lines}
    assert {line["status"] for line in lines if line["level"] == "debug" and "status" in line} >= {200}
    assert written.admin not in log.read_text()


def test_warnings_and_errors_that_nobody_catches_are_json_too(tmp_path: Path) -> None:
    program = (
        "import sys, threading, warnings\n"
        "from preshuffle.api.web import set_up\n"
        "set_up('json', 'warning')\n"
        "import logging; logging.getLogger('x').info('left out')\n"
        "from preshuffle.api.upkeep import WorkerProcess\n"
        "WorkerProcess().run(logging.warning, 'of the child')\n"
        "warnings.warn('old', DeprecationWarning)\n"
        "thread = threading.Thread(target=lambda: 1 / 0, name='t')\n"
        "thread.start(); thread.join()\n"
        "class Odd:\n    def __del__(self): raise ValueError('late')\n"
        "odd = Odd(); del odd\n"
        "raise OSError('end')\n"
    )
    ended = subprocess.run(
        [COMMAND[0], "-W", "always", "-c", program], env=environment(), capture_output=True, text=True, check=False
    )
    found = [(line["level"], line["logger"], "exception" in line) for line in lines_of(ended.stderr)]
    assert found == [
        ("warning", "root", False),
        ("warning", "py.warnings", False),
        ("critical", "preshuffle.api", True),
        ("error", "preshuffle.api", True),
        ("critical", "preshuffle.api", True),
    ]


@pytest.mark.parametrize(
    ("variables", "options"),
    [
        ({}, ("--log=json", "--db", "mysql://x")),
        ({"LOG": "json"}, ("--colour", "1")),
        ({}, ("--log", "json", "--port", "x")),
        ({"LOG": "json"}, ("--book", "/no/such")),
    ],
)
def test_a_start_that_fails_is_a_line_of_json_too(
    variables: dict[str, str],
    options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"PRESHUFFLE_{name}", value)
    assert main(["serve", *options]) == 2
    out, err = capsys.readouterr()
    (line,) = lines_of(err)
    assert (out, line["level"]) == ("", "critical"), line


def test_a_variable_of_kubernetes_is_named_where_it_is_in_the_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRESHUFFLE_PORT", "tcp://10.0.0.1:80")
    assert main(["serve"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("preshuffle: PRESHUFFLE_PORT: ")
    assert "enableServiceLinks: false" in line


def test_what_clients_send_forges_no_line_of_text() -> None:
    record = logging.makeLogRecord(
        {"name": "a", "levelname": "INFO", "msg": "on %s", "args": ("n\x1b[2J\nINFO\u2028\x9b",)}
    )
    assert TextFormatter("%(levelname)s %(name)s: %(message)s").format(record) == (
        r"INFO a: on n\x1b[2J\nINFO\u2028\x9b"
    )

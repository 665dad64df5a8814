"""Who may do what: every route with every kind of token, from the application's own routes."""

import base64
import os
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from preshuffle.api.app import access_of, create_app
from preshuffle.api.errors import ServeError
from preshuffle.api.settings import Settings
from preshuffle.api.web.access import OPEN, QUESTIONS, need_of
from preshuffle.api.web.tokens import hash_of, load_tokens
from preshuffle.registry import Registry
from support.service.server import REPORT, Client
from support.service.tokens import Written, write_tokens

EVERY = {"GET", "POST", "PUT", "DELETE"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_tokens(tmp_path_factory.mktemp("tokens") / "tokens.yaml")


@pytest.fixture(scope="module", params=["open", "closed"])
def app(request: pytest.FixtureRequest, written: Written) -> FastAPI:
    folder = written.file.parent / request.param
    folder.mkdir()
    settings = Settings(db=f"sqlite:///{folder}/store.db", tokens=str(written.file), reads=request.param)
    return create_app(settings, Registry.default())


def ask(app: FastAPI, method: str, path: str, token: str | None, **more: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return Client(app.state.front).request(method, path, headers=headers, **more)


def routes(app: FastAPI) -> list[tuple[str, str]]:
    found = [
        (method, route.path) for route in app.routes if isinstance(route, APIRoute) for method in route.methods or ()
    ]
    return sorted({(method, path) for method, path in found if path != "/v1/events"})


def filled(path: str, name: str) -> str:
    return path.replace("{name}", name).replace("{version}", "0.1.20").replace("{digest}", "sha256:" + "0" * 64)


def test_every_route_with_every_kind_of_token(app: FastAPI, written: Written) -> None:
    closed = app.state.front._access.reads == "closed"
    assert len(routes(app)) > 20
    for method, path in routes(app):
        need = need_of(method, filled(path, "gpt-1"))
        writes = need.kind == "change"
        none = ask(app, method, filled(path, "gpt-1"), None).status_code
        wrong = ask(app, method, filled(path, "gpt-1"), "psh_wrong").status_code
        own = ask(app, method, filled(path, "gpt-1"), written.report).status_code
        foreign = ask(app, method, filled(path, "llama-1"), written.report).status_code
        admin = ask(app, method, filled(path, "llama-1"), written.admin).status_code
        line = f"{method} {path}"
        assert (none == 401) == (writes or (closed and need.kind == "read")), line
        assert wrong == 401, line
        assert (own == 403) == (writes and "{name}" not in path), line
        assert (foreign == 403) == writes, line
        assert admin not in (401, 403), line


def test_only_reading_and_questions_need_no_right_to_change(app: FastAPI) -> None:
    changes = {(method, path) for method, path in routes(app) if need_of(method, filled(path, "d")).kind == "change"}
    assert not any(method == "GET" for method, _ in changes)
    asked = {path for method, path in routes(app) if method == "POST"} - {path for method, path in changes}
    assert asked <= QUESTIONS
    for path in QUESTIONS:  # a path that merely begins like one is no question
        assert need_of("POST", path + "/more").kind == "change"
    for method in ("PATCH", "BREW"):
        assert need_of(method, "/v1/resolve/else").kind == "change"
    assert {path for method, path in routes(app) if need_of(method, path).kind == "nothing"} == OPEN


def test_a_reporter_cannot_leave_its_deployments(app: FastAPI, written: Written) -> None:
    for name in ("llama", "xgpt-1", "GPT-1", "..%2Fgpt-1", "llama%2f..%2fgpt-1", "llama/../gpt-1/heartbeat"):
        answer = ask(app, "PUT", f"/v1/deployments/{name}", written.report, json=REPORT)
        assert answer.status_code in (403, 404, 405, 422), (name, answer.status_code)
        assert ask(app, "GET", "/v1/deployments", written.admin).json()["deployments"] == []
    answer = ask(app, "PUT", "/v1/deployments/llama", written.report, json=REPORT)
    assert answer.json()["detail"] == "token 'fleet-a' may change gpt-*; not 'llama'"


def test_what_is_changed_is_written_under_the_tokens_name(app: FastAPI, written: Written) -> None:
    assert ask(app, "PUT", "/v1/deployments/gpt-9", written.report, json=REPORT).status_code == 201
    history = ask(app, "GET", "/v1/deployments/gpt-9/history", written.admin).json()
    assert [event["who"] for event in history["events"]] == ["fleet-a"]
    assert ask(app, "DELETE", "/v1/deployments/gpt-9", written.admin).status_code == 204


def test_a_browser_sends_the_token_as_a_password(app: FastAPI, written: Written) -> None:
    def basic(text: str) -> int:
        headers = {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}
        return Client(app.state.front).request("GET", "/", headers=headers).status_code

    assert basic(f"anyone:{written.report}") == 200
    assert basic("anyone:wrong") == 401
    refused = Client(app.state.front).request("PUT", "/v1/deployments/gpt-1", json=REPORT)
    assert 'Basic realm="preshuffle"' in refused.headers["www-authenticate"]
    for odd in ("Basic !!!", "Bearer", "Digest x", "Basic /w=="):
        answer = Client(app.state.front).request("GET", "/v1/registry", headers={"Authorization": odd})
        assert answer.status_code == 401, odd


def test_the_file_holds_no_secret(written: Written) -> None:
    text = written.file.read_text()
    assert written.admin not in text
    assert hash_of(written.admin) in text
    found = load_tokens(str(written.file)).find(written.admin)
    assert found is not None
    assert found.name == "ops"


H = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tokens: []", r"t\.yaml:1:1: tokens"),
        ("tokens:\n  - {name: a, hash: abc, role: admin}", r"t\.yaml:2:\d+: tokens\.0\.hash"),
        (f"tokens:\n  - {{name: a, hash: '{H}', role: root}}", r"role.*valid: report, admin"),
        (f"tokens:\n  - {{name: a, hash: '{H}', role: report}}", "a report token needs deployments"),
        ("tokens:" + f"\n  - {{name: a, hash: '{H}', role: admin}}" * 2, "two tokens have the name a"),
        ("tokens: [&a [*a]]", "aliases are not allowed"),
        ("a: b: c", "not valid YAML"),
        ("[" * 1000, "nested deeper"),
    ],
)
def test_a_wrong_file_stops_the_start_and_says_where(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(text)
    with pytest.raises(ServeError, match=said):
        access_of(Settings(tokens=str(file)))
    with pytest.raises(ServeError, match="cannot be read: No such file"):
        access_of(Settings(tokens=str(tmp_path / "absent.yaml")))


def test_a_pipe_in_the_files_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tokens.yaml")
    with pytest.raises(ServeError, match="is not a regular file"):
        load_tokens(str(tmp_path / "tokens.yaml"))


def test_without_tokens_everything_is_open_and_nobody_has_a_name(tmp_path: Path) -> None:
    app = create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default())
    assert ask(app, "PUT", "/v1/deployments/d", None, json=REPORT).status_code == 201
    assert ask(app, "PUT", "/v1/deployments/d", "psh_any", json=REPORT).status_code == 200
    (event,) = ask(app, "GET", "/v1/deployments/d/history", None).json()["events"]
    assert event["who"].startswith("anonymous")

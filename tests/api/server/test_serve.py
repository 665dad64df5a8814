"""The service as a user starts it: one clear message where it cannot start, and nothing half done."""

import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from preshuffle.api.app import serve
from preshuffle.api.errors import ServeError, StoreError
from preshuffle.api.server.listen import bind, check_host, is_loopback
from preshuffle.api.settings import Settings
from preshuffle.registry.base.errors import BookError, QueryError
from support.service.server import COMMAND, REPORT, environment, running_server
from support.service.tokens import write_tokens


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    with running_server(tmp_path / "store.db") as server:
        url = server.url
        with httpx.Client(base_url=url) as client:
            revisions = [client.put(f"/v1/deployments/d{index}", json=REPORT).json()["revision"] for index in range(20)]
            server.kill()
    with running_server(tmp_path / "store.db") as server:
        listed = httpx.get(f"{server.url}/v1/deployments").json()["deployments"]
        assert [deployment["revision"] for deployment in sorted(listed, key=lambda one: one["revision"])] == revisions
        later = httpx.put(f"{server.url}/v1/deployments/new", json=REPORT).json()["revision"]
        assert later > max(revisions)
        assert server.stop() == 0


def test_a_signal_right_after_the_start_is_not_lost(tmp_path: Path) -> None:
    """It arrives before uvicorn takes signals."""
    for attempt in range(3):
        with running_server(tmp_path / f"store-{attempt}.db") as server:
            assert server.stop() in (0, -signal.SIGTERM)  # before anything is open it ends at once


def test_it_says_where_it_listens_and_stops_cleanly(tmp_path: Path) -> None:
    with running_server(tmp_path / "store.db") as server:
        ready = httpx.get(f"{server.url}/readyz").json()
        registry = httpx.get(f"{server.url}/v1/registry").json()
        problems: dict[str, list[str]] = {"book_problems": [], "table_problems": []}
        assert ready == {"status": "ok", "registry_digest": registry["digest"], **problems}
        assert server.stop() == 0
    assert [file.name for file in tmp_path.iterdir()] == ["store.db"]


def test_a_port_in_use_is_one_message_and_leaves_no_file(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [*COMMAND, "--port", str(port), "--db", f"sqlite:///{tmp_path}/store.db"],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert f"cannot listen on 127.0.0.1:{port}: the port is in use" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_one_message_before_the_port_is_bound(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    file.write_text("hello")
    with socket.create_server(("127.0.0.1", 0)) as taken:  # were the port tried first, it would be this message
        settings = Settings(port=taken.getsockname()[1], db=f"sqlite:///{file}")
        with pytest.raises(StoreError, match=r"store\.db is not a SQLite database"):
            serve(settings)
    assert file.read_text() == "hello"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_a_host_that_others_reach_needs_tokens(host: str) -> None:
    with pytest.raises(ServeError, match="--tokens"):
        check_host(Settings(host=host))
    check_host(Settings(host=host, tokens="tokens.yaml"))


def test_loopback_needs_none() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost")] == [True] * 4


def test_answers_are_not_held_back_for_a_full_packet() -> None:
    with bind("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # asyncio sets TCP_NODELAY on such sockets alone


def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens.yaml")
    settings = Settings(host="192.0.2.1", port=0, db=f"sqlite:///{tmp_path}/store.db", tokens=str(tokens.file))
    with pytest.raises(ServeError, match="does not have that address"):
        serve(settings)
    assert list(tmp_path.iterdir()) == [tokens.file]


def test_a_wrong_overlay_or_table_stops_the_start(tmp_path: Path) -> None:
    book = tmp_path / "book.yaml"
    book.write_text("recipes: 5\n")
    with pytest.raises(BookError, match=r"book\.yaml:1"):
        serve(Settings(port=0, db=f"sqlite:///{tmp_path}/store.db", book=(str(book),)))
    with pytest.raises(ServeError, match="kernel tables do not load"):
        serve(Settings(port=0, db=f"sqlite:///{tmp_path}/store.db", tables=(f"{tmp_path}/absent.csv",)))
    assert list(tmp_path.iterdir()) == [book]


def test_every_address_with_tokens(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens.yaml")
    with running_server(tmp_path / "store.db", tokens=str(tokens.file), host="0.0.0.0") as server:
        assert server.url.startswith("http://0.0.0.0:")
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
        assert httpx.put(f"{url}/v1/deployments/d", json=REPORT).status_code == 401
        admin = {"Authorization": f"Bearer {tokens.admin}"}
        assert httpx.put(f"{url}/v1/deployments/d", json=REPORT, headers=admin).status_code == 201


def test_settings_come_from_the_environment_and_options_win() -> None:
    environ = {
        "PRESHUFFLE_PORT": "9000",
        "PRESHUFFLE_BOOK": "a:b",
        "PRESHUFFLE_HOST": "",
        "PRESHUFFLE_READS": "closed",
    }
    settings = Settings.from_env(environ, port=None, tables=("t@0.1.20",))
    assert settings == Settings(port=9000, book=("a", "b"), tables=("t@0.1.20",), reads="closed")
    assert Settings.from_env({"PRESHUFFLE_PORT": "9000"}, port="80").port == 80


@pytest.mark.parametrize(
    ("environ", "options", "place"),
    [
        ({"PRESHUFFLE_PORT": "x"}, {}, "PRESHUFFLE_PORT"),
        ({}, {"port": "70000"}, "--port"),
        ({}, {"colour": 1}, "--colour"),
    ],
)
def test_a_wrong_setting_names_where_it_came_from(
    environ: dict[str, str], options: dict[str, object], place: str
) -> None:
    with pytest.raises(QueryError) as error:
        Settings.from_env(environ, **options)
    assert [problem.field for problem in error.value.problems] == [place]

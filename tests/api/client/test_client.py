"""Client against a running service, against none, and against another server."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from preshuffle.api.client import Client, ClientError
from preshuffle.api.fleet.deployments import Group
from preshuffle.registry import NoRecipeError, Observation, Query, QueryError, Registry
from support.processes.machine import free_port
from support.service.server import OBSERVATION, running_server
from support.service.tokens import write_tokens

QUERY = Query(
    model="openai/gpt-oss-120b",
    arch="gfx950",
    activation_dtype="fp4x2",
    tp=2,
    engine="vllm@0.33.0",
    env={"VLLM_ROCM_USE_AITER": "1", "X": "a=b&c d"},
    tokens=(1, 64),
    gated=True,
)
GROUP = Group(layers="0-35", observation=Observation.parse(OBSERVATION))


class Counting(httpx.HTTPTransport):
    """A real transport that remembers what was answered."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[tuple[str, int]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        self.answers.append((request.method, answer.status_code))
        return answer


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("service") / "store.db") as server:
        yield server.url


@pytest.fixture(scope="module")
def nowhere() -> str:
    return f"http://127.0.0.1:{free_port()}"


def test_decisions_equal_the_books_and_are_cached(url: str) -> None:
    with Client(url, transport=(counting := Counting())) as client:
        first, second = client.resolve(QUERY), client.resolve(QUERY)
    assert first.source == "service"
    assert first.why is None
    assert first.value == Registry.default().resolve(QUERY)
    assert second.value is first.value
    assert counting.answers == [("GET", 200), ("GET", 304)]


def test_a_query_too_long_for_a_url_is_posted(url: str) -> None:
    long = QUERY.model_copy(update={"env": {f"OTHER_{number}": "x" * 200 for number in range(40)}})
    with Client(url, transport=(counting := Counting())) as client:
        assert client.resolve(long).value.recipe == Registry.default().resolve(QUERY).recipe
    assert counting.answers == [("POST", 200)]


def test_an_invalid_query_raises_the_registrys_error(url: str, nowhere: str) -> None:
    for at in (url, nowhere):
        with Client(at) as client:
            with pytest.raises(NoRecipeError) as error:
                client.resolve(Query(model="nobody/knows", arch="gfx950"))
            assert error.value.nearest
            with pytest.raises(QueryError, match="tp: 96 ranks"):
                client.resolve(QUERY.model_copy(update={"tp": 96}))


def test_check_report_and_heartbeat(url: str) -> None:
    with Client(url) as client:
        report = client.check(GROUP.observation)
        assert report.value == Registry.default().check(GROUP.observation)
        with pytest.raises(ClientError) as error:
            client.heartbeat("gpt-prod", 3)
        assert error.value.status == 404
        reported = client.report("gpt-prod", [GROUP], replica=3, node="n", ttl_s=60)
        assert reported.source == "service"
        assert reported.value.receipt is not None
        assert reported.value.receipt.replica == 3
        beat = client.heartbeat("gpt-prod", 3)
        assert beat.value is not None
        assert beat.value.seen_at >= reported.value.receipt.replaced_at
        with pytest.raises(ClientError) as error:
            client.report("gpt-prod", [GROUP], replica=4, if_match='"999999"')
        assert error.value.status == 412
        with pytest.raises(QueryError, match="layer 0 is in"):
            client.report("gpt-prod", [GROUP, GROUP])


def test_without_a_service_the_embedded_book_answers(nowhere: str, caplog: pytest.LogCaptureFixture) -> None:
    with Client(nowhere) as client:
        decision = client.resolve(QUERY)
        assert decision.source == "embedded"
        assert decision.why is not None
        assert nowhere in decision.why
        assert decision.value == Registry.default().resolve(QUERY)
        assert client.check(GROUP.observation).source == "embedded"
        reported = client.report("gpt-prod", [GROUP])
        assert (reported.source, reported.value.receipt) == ("embedded", None)
        assert reported.value.report == Registry.default().check(GROUP.observation)
        assert client.heartbeat("gpt-prod").value is None
    assert "the embedded book answers" in caplog.text
    assert "no heartbeat was sent" in caplog.text


def test_another_book_can_be_embedded(nowhere: str) -> None:
    mine = Registry.load()
    with Client(nowhere, registry=mine) as client:
        assert client.resolve(QUERY).value.registry_digest == mine.digest


class _Odd(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = {"/v1/resolve": (502, b"<html>bad gateway</html>")}.get(self.path.partition("?")[0], (404, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        return


def test_responses_of_other_servers_are_not_answers() -> None:
    with HTTPServer(("127.0.0.1", 0), _Odd) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            with Client(f"http://127.0.0.1:{server.server_port}") as client:
                reply = client.resolve(QUERY)
                assert reply.source == "embedded"
                assert reply.why is not None
                assert "502, and not by preshuffle" in reply.why
                assert client.check(GROUP.observation).source == "embedded"
        finally:
            server.shutdown()
            thread.join()


def test_a_token_without_permission(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens.yaml")
    with running_server(tmp_path / "store.db", tokens=str(tokens.file), reads="closed") as server:
        with Client(server.url, token=tokens.report) as client:
            assert client.resolve(QUERY).source == "service"
            assert client.report("gpt-1", [GROUP]).value.receipt is not None
            with pytest.raises(ClientError, match="may change gpt-\\*; not 'llama'") as error:
                client.report("llama", [GROUP])
            assert error.value.status == 403
        with Client(server.url) as client, pytest.raises(ClientError, match="needs a token"):
            client.resolve(QUERY)

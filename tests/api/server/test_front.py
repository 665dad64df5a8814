"""The front: request ids, limits on heads, GZip, metrics, logs, events, the management port and the shutdown."""

import json
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from preshuffle.api.app import create_app
from preshuffle.api.server import connection
from preshuffle.api.settings import Settings
from preshuffle.registry import Registry
from support.service.server import REPORT, Client, running_server
from support.service.tokens import write_tokens

QUERY = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "fp4x2"}


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default()).state.front)


def test_a_request_keeps_its_id_and_gets_one(client: Client) -> None:
    for path in ("/v1/resolve", "/healthz"):
        for _ in range(2):  # the second answer is a kept one
            told = client.get(path, params=QUERY, headers={"X-Request-ID": "abc-1"})
            assert told.headers["x-request-id"] == "abc-1"
    assert len(client.get("/healthz").headers["x-request-id"]) == 16
    odd = client.get("/healthz", headers={"X-Request-ID": "a\tb" + "c" * 200})
    assert len(odd.headers["x-request-id"]) == 16


def test_a_cached_response_is_the_first_response(client: Client) -> None:
    plain = {"Accept-Encoding": "identity"}
    first, second = (client.get("/v1/resolve", params=QUERY, headers=plain) for _ in range(2))
    assert first.content == second.content
    assert first.headers["etag"] == second.headers["etag"]
    for tag in (first.headers["etag"], f"W/{first.headers['etag']}", f'"x", {first.headers["etag"]}', "*"):
        known = client.get("/v1/resolve", params=QUERY, headers={**plain, "If-None-Match": tag})
        assert (known.status_code, known.content) == (304, b"")
    tagged = {**plain, "If-None-Match": first.headers["etag"]}
    other = client.get("/v1/resolve", params={**QUERY, "tp": "2"}, headers=tagged)
    assert other.status_code == 200
    assert other.headers["etag"] != first.headers["etag"]


def test_another_registry_empties_the_cache(tmp_path: Path) -> None:
    app = create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default())
    client = Client(app.state.front)
    first = client.get("/v1/resolve", params=QUERY)
    overlay = tmp_path / "book.yaml"
    overlay.write_text(
        "rules:\n  mine:\n    when: {model: openai/gpt-oss-120b, arch: gfx950, activation_dtype: fp4x2, tp: 1, ep: 1}\n"
        "    use: mxfp4.gui16\n    priority: 1\n    because: a test\n"
    )
    app.state.service.answers.replace(Registry.load([str(overlay)]))
    second = client.get("/v1/resolve", params=QUERY, headers={"If-None-Match": first.headers["etag"]})
    assert second.status_code == 200
    assert second.json()["rule"] == "mine"


def test_large_headers_are_one_problem(client: Client) -> None:
    refused = client.get("/healthz", headers={"X-Large": "a" * connection.MAX_HEAD})
    assert refused.status_code == 431
    assert refused.json()["type"] == "urn:preshuffle:problem:head-too-large"


def test_a_request_refused_by_the_front_has_an_id_too(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens.yaml")
    settings = Settings(db=f"sqlite:///{tmp_path}/store.db", tokens=str(tokens.file), management_port=0)
    client = Client(create_app(settings, Registry.default()).state.front)
    large = {"X-Large": "a" * connection.MAX_HEAD}
    for answer in (
        client.put("/v1/deployments/d", json=REPORT),
        client.get("/metrics"),
        client.get("/", headers=large),
    ):
        assert answer.status_code in (401, 404, 431)
        assert len(answer.headers["x-request-id"]) == 16
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/v1/registry", headers={"Authorization": ""}).status_code == 200  # as without the header
    named = client.put("/v1/deployments/d", json=REPORT, headers={"X-Request-ID": "r-8"})
    assert named.headers["x-request-id"] == "r-8"


def test_nobody_is_believed_about_who_they_are_or_upgraded(tmp_path: Path) -> None:
    with running_server(tmp_path / "store.db", stderr=True) as server:
        lie = {"X-Forwarded-For": "192.0.2.1"}
        httpx.put(f"{server.url}/v1/deployments/d", json=REPORT, headers=lie)
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        for path, status in (("/healthz", 200), ("/none", 404)):
            answer = httpx.get(f"{server.url}{path}", headers=upgrade)
            assert (answer.status_code, answer.headers["content-type"].partition("json")[1]) == (status, "json")
        assert {event["who"] for event in httpx.get(f"{server.url}/v1/deployments/d/history").json()["events"]} == {
            "anonymous at 127.0.0.1"
        }
        assert server.stop() == 0
        assert server.process.stderr is not None
        assert "WebSocket" not in server.process.stderr.read()


def test_metrics_have_few_labels(client: Client) -> None:
    client.put("/v1/deployments/a-name", json=REPORT)
    client.get("/v1/deployments/a-name")
    client.get("/no/such/path")
    client.request("BREW", "/v1/deployments/a-name")
    wrong = json.loads(json.dumps(REPORT))
    wrong["groups"][0]["observation"]["applied"]["tensors"]["w13_weight"]["layout"] = "gui16"
    client.put("/v1/deployments/wrong", json=wrong)
    text = client.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['preshuffle_http_requests_total{method="GET",route="/v1/deployments/{name}",status="200"}'] == "1.0"
    assert lines['preshuffle_http_requests_total{method="GET",route="other",status="404"}'] == "1.0"
    assert lines['preshuffle_http_requests_total{method="other",route="/v1/deployments/{name}",status="405"}'] == "1.0"
    assert lines['preshuffle_deployments{verdict="mismatch"}'] == "1.0"
    assert lines['preshuffle_findings{code="layout_mismatch"}'] == "1.0"
    assert lines["preshuffle_registry_loads"] == "1.0"
    assert f'preshuffle_registry_info{{digest="{Registry.default().digest}"}}' in lines
    assert "a-name" not in text
    client.delete("/v1/deployments/wrong")
    assert 'code="layout_mismatch"' not in client.get("/metrics").text


def test_what_changes_or_fails_is_a_line_of_json(tmp_path: Path) -> None:
    with running_server(tmp_path / "store.db", "--log", "json", stderr=True) as server:
        httpx.get(f"{server.url}/healthz")
        httpx.put(f"{server.url}/v1/deployments/d", json=REPORT, headers={"X-Request-ID": "r-7"})
        httpx.post(f"{server.url}/v1/deployments/d/heartbeat")
        httpx.post(f"{server.url}/v1/resolve", json=QUERY)
        httpx.post(f"{server.url}/v1/resolve", content=b"{", headers={"Content-Type": "application/json"})
        assert server.stop() == 0
        assert server.process.stderr is not None
        lines = [json.loads(line) for line in server.process.stderr.read().splitlines()]
    asked = [line for line in lines if line["logger"] == "preshuffle.api.requests"]
    assert [(line["method"], line["status"]) for line in asked] == [("PUT", 201), ("POST", 400)]
    assert asked[0]["request_id"] == "r-7"
    assert asked[0]["path"] == "/v1/deployments/d"


def test_events_say_only_that_something_changed_and_do_not_hold_up_the_end(tmp_path: Path) -> None:
    with running_server(tmp_path / "store.db") as server, httpx.stream("GET", f"{server.url}/v1/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        assert next(lines) == "retry: 2000"
        httpx.put(f"{server.url}/v1/deployments/d", json=REPORT)
        heard = [line for line, _ in zip(lines, range(3), strict=False) if line]
        assert heard == ["event: changed", "data: {}"]
        assert server.stop() == 0  # the stream would go on for ever
        assert [line for line in lines if line not in ("", "event: changed", "data: {}")] == []


def test_the_management_port_has_the_metrics_to_itself(tmp_path: Path) -> None:
    with running_server(tmp_path / "store.db", "--management-port", "0", head_seconds="2") as server:
        beside = server.line.split("management ")[1].rstrip(")\n")
        assert httpx.get(f"{beside}/metrics").text.startswith("# HELP")
        assert httpx.get(f"{beside}/readyz").json()["status"] == "ok"
        assert httpx.get(f"{beside}/v1/registry").json()["type"].endswith(":not-found")
        assert httpx.get(f"{server.url}/metrics").status_code == 404
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        with socket.create_connection(("127.0.0.1", int(beside.rsplit(":", 1)[1]))) as slow:
            slow.settimeout(60)
            slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n")
            assert slow.recv(65536).startswith(b"HTTP/1.1 408")
        assert server.stop() == 0


def test_a_head_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    with running_server(tmp_path / "store.db", head_seconds="1") as server:
        port = int(server.url.rsplit(":", 1)[1])
        with (
            socket.create_connection(("127.0.0.1", port)) as slow,
            socket.create_connection(("127.0.0.1", port)) as idle,
        ):
            slow.settimeout(60)
            idle.settimeout(60)
            slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
            assert slow.recv(65536).startswith(b"HTTP/1.1 408")
            assert idle.recv(10) == b""
        with socket.create_connection(("127.0.0.1", port)) as second:
            second.settimeout(60)
            second.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b'"}'):
                answer += second.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200")
            second.sendall(b"GET /hea")  # on a connection that has been answered once
            assert b"408" in second.recv(65536)
        with socket.create_connection(("127.0.0.1", port)) as odd:
            odd.settimeout(60)
            odd.sendall(b"\x16\x03\x01 no http\r\n\r\n")
            assert b"urn:preshuffle:problem:malformed-request" in read_until(odd, b"}")
        with socket.create_connection(("127.0.0.1", port)) as large:
            large.settimeout(60)
            large.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000)
            time.sleep(0.05)
            large.sendall(b"a" * 20_000)
            assert large.recv(65536).startswith(b"HTTP/1.1 431")


def test_a_body_that_nobody_reads_holds_no_connection(tmp_path: Path) -> None:
    """What is answered before its body has come: a drip of it must not keep the connection for ever."""
    with running_server(tmp_path / "store.db", head_seconds="1") as server:
        port = int(server.url.rsplit(":", 1)[1])
        for path in (b"/healthz", b"/v1/deployments/none/heartbeat"):
            with socket.create_connection(("127.0.0.1", port)) as slow:
                slow.settimeout(0.05)
                method = b"GET" if path == b"/healthz" else b"POST"
                slow.sendall(method + b" " + path + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
                assert ended_while(slow, partial(slow.sendall, b"a")), path
        with socket.create_connection(("127.0.0.1", port)) as kept:  # one that comes is no reason to end it
            kept.settimeout(60)
            kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
            assert read_until(kept, b'"ok"}').startswith(b"HTTP/1.1 200")
            kept.sendall(b"a" * 100_000 + b"GET /v1/none HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_until(kept, b"}").startswith(b"HTTP/1.1 404")
            kept.sendall(b"GET /hea")
            assert b"408" in kept.recv(65536)


def ended_while(peer: socket.socket, go_on: Callable[[], object]) -> bool:
    """Whether the peer ends a connection within a minute while one goes on."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            go_on()
            if not peer.recv(65536):
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def read_until(peer: socket.socket, end: bytes) -> bytes:
    answer = b""
    while not answer.endswith(end):
        more = peer.recv(65536)
        assert more, f"it ended after {answer!r}"
        answer += more
    return answer


def test_a_body_of_100_mb_is_not_read(tmp_path: Path) -> None:
    with running_server(tmp_path / "store.db") as server:
        port = int(server.url.rsplit(":", 1)[1])
        head = b"POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", port)) as declared:
            declared.sendall(head + b"Content-Length: 104857600\r\n\r\n")
            assert declared.recv(65536).startswith(b"HTTP/1.1 413")
        with socket.create_connection(("127.0.0.1", port)) as chunked:
            chunked.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            sent = 0
            try:
                for _ in range(1600):
                    chunked.sendall(b"10000\r\n" + b"a" * 65536 + b"\r\n")
                    sent += 65536
            except OSError:
                pass
            assert sent < 32 << 20
        assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_large_bodies_are_compressed_where_the_client_accepts_it(client: Client) -> None:
    client.put("/v1/deployments/d", json=REPORT)
    paths = ("/v1/resolve", "/v1/recipes", "/v1/kernels", "/v1/deployments/d", "/", "/static/page.css")
    for path in paths * 2:  # the second response may be a cached one
        params = QUERY if path == "/v1/resolve" else None
        packed = client.get(path, params=params, headers={"Accept-Encoding": "gzip"})
        plain = client.get(path, params=params, headers={"Accept-Encoding": "identity"})
        assert packed.headers["content-encoding"] == "gzip", path
        assert "content-encoding" not in plain.headers, path
        assert packed.headers["vary"] == "Accept-Encoding", path
        assert int(packed.headers["content-length"]) < len(plain.content), path
        if path != "/":  # it says how long ago something was
            assert packed.content == plain.content, path
    small = client.get("/healthz", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in small.headers


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip", True),
        ("br, gzip;q=0.5", True),
        ("deflate,gzip ; q=0.01, br", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0, br", False),
        ("x-gzip", False),
        ("br", False),
    ],
)
def test_a_body_is_not_compressed_against_the_clients_will(client: Client, accepted: str, compressed: bool) -> None:
    for path in ("/v1/recipes", "/v1/recipes", "/static/page.css"):
        response = client.get(path, headers={"Accept-Encoding": accepted})
        assert (response.headers.get("content-encoding") == "gzip") is compressed


def test_a_compressed_body_has_a_weak_tag_that_conditions_accept(client: Client) -> None:
    revision = client.put("/v1/deployments/d", json=REPORT).headers["etag"]
    packed = {"Accept-Encoding": "gzip"}
    for path in ("/v1/recipes", "/v1/kernels", "/static/page.css"):
        tag = client.get(path, headers=packed).headers["etag"]
        assert tag.startswith('W/"')
        assert client.get(path, headers={**packed, "If-None-Match": tag}).status_code == 304, path
    tag = client.get("/v1/deployments/d", headers=packed).headers["etag"]
    assert tag == f"W/{revision}"
    changed = client.put("/v1/deployments/d", json={**REPORT, "node": "b"}, headers={"If-Match": tag})
    assert changed.status_code == 200
    assert client.put("/v1/deployments/d", json=REPORT, headers={"If-Match": tag}).status_code == 412

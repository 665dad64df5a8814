"""The service below a path of its host: every link, request and example stays there, whatever the proxy does."""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urldefrag, urljoin, urlsplit

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from preshuffle.api.app import create_app
from preshuffle.api.cli import main
from preshuffle.api.client import Client
from preshuffle.api.fleet.deployments import Group
from preshuffle.api.settings import TOP_PATHS, Settings
from preshuffle.registry import Observation, QueryError, Registry
from support.pages.browser import browser, require_browser
from support.service.prefix_proxy import OUTSIDE, prefix_proxy
from support.service.server import OBSERVATION, REPORT, running_server
from support.service.server import Client as AppClient

ROOT = "/tools/preshuffle"
TEMPLATES = Path(__file__).parents[3] / "api" / "templates"
WRONG = {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "gui16"}}}
GROUP = Group(layers="0-35", observation=Observation.parse(OBSERVATION))
_LINK = re.compile(r'\s(?:href|src|action|hx-get|data-path|data-page)="([^"#][^"]*)"')
_FURTHER = 1
"""Links of one kind that are followed; of all it is seen that they stay below the path."""
HTTP = httpx.Client(timeout=60, verify=False)  # no certificates to load


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with a root path; the URL ends with it."""
    folder = tmp_path_factory.mktemp("service")
    with running_server(folder / "store.db", "--root-path", f"{ROOT}/") as server:
        for name, applied in (("prod", None), ("wrong", WRONG)):
            observation = {**OBSERVATION, **({"applied": applied} if applied else {})}
            body = {**REPORT, "groups": [{"layers": "0-35", "observation": observation}]}
            HTTP.put(f"{server.url}/v1/deployments/{name}", json=body).raise_for_status()
        yield server.url
    HTTP.close()


@pytest.fixture(params=[True, False], ids=["strips", "keeps"])
def public(service: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where a proxy offers it, which cuts the path off or does not."""
    with prefix_proxy(service, ROOT, request.param) as url:
        yield url


def kind_of(url: str) -> tuple[object, ...]:
    """Return what pages of one kind have in common."""
    parts = urlsplit(url)
    return (*parts.path.removeprefix(ROOT).split("/")[:3], *sorted({name for name, _ in parse_qsl(parts.query)}))


def crawl(public: str, most: int) -> tuple[set[str], dict[str, int]]:
    """Follow links from the first page; return those of other hosts, and the status of each that was followed."""
    host = urlsplit(public).netloc
    seen, foreign, followed = {f"{public}/"}, set[str](), dict[str, int]()
    kinds: Counter[tuple[object, ...]] = Counter()
    waiting = deque(seen)
    while waiting:
        url = waiting.popleft()
        answer = HTTP.get(url, headers={"Accept": "text/html"})
        followed[url] = answer.status_code
        if not answer.headers.get("content-type", "").startswith("text/html"):
            continue
        for link in map(unescape, _LINK.findall(answer.text)):
            found = urldefrag(urljoin(url, link)).url
            if urlsplit(found).netloc != host:
                foreign.add(found)
            elif found not in seen:
                seen.add(found)
                assert urlsplit(found).path.startswith(f"{ROOT}/"), f"{url} links to {link}"
                kinds[kind_of(found)] += 1
                if kinds[kind_of(found)] <= most:
                    waiting.append(found)
    return foreign, followed


def check_crawl(public: str, most: int) -> None:
    foreign, followed = crawl(public, most)
    assert {url: status for url, status in followed.items() if status not in (200, 422)} == {}
    pages = {urlsplit(url).path.removeprefix(ROOT).split("/")[1] for url in followed}
    assert TOP_PATHS - {"healthz", "readyz", "metrics"} <= pages
    assert not [url for url in foreign if "preshuffle" in urlsplit(url).path]


def test_no_link_of_any_page_leaves_the_path(public: str) -> None:
    check_crawl(public, _FURTHER)


@pytest.mark.slow
def test_every_link_of_every_page_is_there(public: str) -> None:
    check_crawl(public, 400)


def test_templates_write_the_root_path_before_every_path() -> None:
    outside = ("{{ url|href }}", "{{ item.link|href }}", "{{ view.link|href }}", "{{ place|href }}")  # of other hosts
    for file in TEMPLATES.glob("*.html"):
        for link in _LINK.findall(file.read_text()):
            assert link.startswith("{{ root }}") or link in outside, f"{file.name}: {link}"


def test_problems_schemas_and_the_document_name_paths_below_it(public: str) -> None:
    document = HTTP.get(f"{public}/openapi.json").json()
    assert document["servers"] == [{"url": ROOT}]
    assert f"Paths are below <code>{public}</code>" in HTTP.get(f"{public}/docs").text
    assert HTTP.get(f"{public}/v1/nothing").json()["instance"] == f"{ROOT}/v1/nothing"
    assert HTTP.get(f"{public}/v1/deployments/nobody").json()["instance"] == f"{ROOT}/v1/deployments/nobody"
    for schema in HTTP.get(f"{public}/v1/schemas").json()["schemas"]:
        assert HTTP.get(urljoin(public, schema["path"])).status_code == 200
    assert HTTP.get(urljoin(public, "/v1/schemas")).status_code == OUTSIDE


def test_cached_answers_tags_and_checks_are_the_same_below_it(public: str, service: str) -> None:
    direct = service.removesuffix(ROOT)
    query = "/v1/resolve?model=openai/gpt-oss-120b&arch=gfx950&activation_dtype=fp4x2&tp=2"
    first, second, plain = (HTTP.get(f"{base}{query}") for base in (public, public, direct))
    assert first.content == second.content == plain.content
    tag = {"If-None-Match": first.headers["ETag"]}
    assert HTTP.get(f"{public}{query}", headers=tag).status_code == 304
    page = HTTP.get(f"{public}/", headers={"Host": "evil.example"})
    assert page.status_code == 421
    assert "default-src 'none'" in HTTP.get(f"{public}/").headers["Content-Security-Policy"]
    crossed = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert HTTP.delete(f"{public}/v1/deployments/prod", headers=crossed).status_code == 403
    for path in ("/healthz", "/readyz", "/metrics"):
        assert HTTP.get(direct + path).status_code == HTTP.get(public + path).status_code == 200
    assert HTTP.get(f"{direct}/toolsy/healthz").status_code == 404
    assert HTTP.post(f"{public}/v1/deployments/prod/heartbeat?replica=0").status_code == 200


def test_command_line_and_client_take_a_service_below_a_path(
    public: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["deployments", "wrong", "--json", "--server", f"{public}/"]) == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "mismatch"
    monkeypatch.setenv("PRESHUFFLE_SERVER", public)
    assert main(["deployments", "wrong", "--acknowledge", "--note", "INC-7", "--json"]) == 0
    monkeypatch.delenv("PRESHUFFLE_SERVER")
    with Client(public) as client:
        answer = client.report("reported", [GROUP])
        assert (answer.why, answer.source) == (None, "service")
        assert client.heartbeat("reported").why is None
    assert main(["deployments", "--server", f"{public}?x=1"]) == 2


def test_examples_to_copy_begin_with_the_public_url(tmp_path: Path) -> None:
    def pages_of(**settings: Any) -> str:
        app = create_app(Settings(db=f"sqlite:///{tmp_path}/store.db", **settings), Registry.default())
        return AppClient(app.state.front).get("/").text

    assert f"curl -X PUT 'http://service{ROOT}/v1/deployments/" in pages_of(root_path=ROOT)
    page = pages_of(public_url="https://p.example/x/")
    assert "curl -X PUT 'https://p.example/x/v1/deployments/" in page
    assert 'href="/x/book"' in page


@pytest.mark.parametrize(
    ("public_url", "root_path", "root", "links"),
    [
        (None, None, "", ""),
        (None, "/", "", ""),
        (None, "/a/b/", "/a/b", "/a/b"),
        ("https://p.example/", None, "", "https://p.example"),
        ("https://p.example/a", None, "/a", "https://p.example/a"),
        ("https://p.example", "/a", "/a", "https://p.example/a"),
        ("https://p.example/a/", "/a", "/a", "https://p.example/a"),
    ],
)
def test_root_path_and_public_url_agree(public_url: str | None, root_path: str | None, root: str, links: str) -> None:
    settings = Settings(public_url=public_url, root_path=root_path)
    assert (settings.root, settings.links_base) == (root, links)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ROOT_PATH": "preshuffle"}, "PRESHUFFLE_ROOT_PATH: 'preshuffle' is no path"),
        ({"ROOT_PATH": "/a/../b"}, "is no path to serve under"),
        ({"ROOT_PATH": "/a//b"}, "is no path to serve under"),
        ({"ROOT_PATH": "/a b"}, "is no path to serve under"),
        ({"ROOT_PATH": "/v1/x"}, "as the service's own paths do"),
        ({"PUBLIC_URL": "https://p.example/docs"}, "PRESHUFFLE_PUBLIC_URL: '/docs' begins as"),
        ({"PUBLIC_URL": "https://p.example/?x=1"}, "has a query or a fragment"),
        ({"PUBLIC_URL": "https://p.example/b", "ROOT_PATH": "/a"}, "'/a' is not the path of the public URL, '/b'"),
    ],
)
def test_a_root_path_that_cannot_be_is_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(QueryError, match=re.escape(message)):
        Settings.from_env({f"PRESHUFFLE_{name}": value for name, value in variables.items()})


def test_the_services_own_paths_are_those_that_a_root_path_must_not_begin_with(tmp_path: Path) -> None:
    app = create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default())
    tops = {path.split("/")[1] for route in app.routes if (path := getattr(route, "path", "/")) != "/"}
    assert tops == TOP_PATHS


@pytest.mark.slow
def test_scripts_stay_below_it(public: str, tmp_path: Path) -> None:
    require_browser()
    with browser(tmp_path / "profile") as window:
        wait = WebDriverWait(window, 60, poll_frequency=0.1)
        window.get(f"{public}/")
        HTTP.put(f"{public}/v1/deployments/later", json=REPORT).raise_for_status()
        wait.until(lambda _: "later" in window.find_element(By.ID, "live").text)
        window.get(f"{public}/deployments/later/marks")
        window.find_element(By.CSS_SELECTOR, "[data-action=silence]").click()
        wait.until(lambda _: window.current_url == f"{public}/deployments/later")
        window.get(f"{public}/deployments/later/marks")
        window.find_element(By.CSS_SELECTOR, "[data-action=forget]").click()
        window.switch_to.alert.accept()
        wait.until(lambda _: window.current_url == f"{public}/")

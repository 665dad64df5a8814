"""The documentation site: it is built without a warning, comes from no other host, and says what the code says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import pytest
from check_site import problems
from cli_pages import cli_pages, parser_of
from page_links import lead_outside, say_titles
from python_pages import FACES, exports
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from preshuffle.api.commands import COMMANDS
from preshuffle.api.commands.options.failures import EXIT_CODES
from preshuffle.registry import Registry
from support.pages.browser import browser, require_browser

ROOT = Path(__file__).parents[2]
MODEL = "openai/gpt-oss-120b"
"""The model that gets a page here: all of them take longer, and ``make docs`` builds them in CI."""

pytestmark = pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs preshuffle[docs]")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as ``make docs`` does."""
    folder = tmp_path_factory.mktemp("built") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "DOCS_MODELS": MODEL, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    return folder


def test_the_site_is_whole(site: Path) -> None:
    assert list(problems(site)) == []
    registry = Registry.default()
    drawn = {path.stem: path.read_text() for path in (site / "book/layouts").glob("*.html") if path.stem != "index"}
    assert set(drawn) == set(registry.book.layouts)
    assert all(text.count('<svg class="picture"') >= 2 for text in drawn.values())
    model = re.sub(r"<[^>]+>", "", (site / f"book/models/{MODEL}.html").read_text())
    assert f"VLLM_ROCM_USE_AITER=1 vllm serve {MODEL} --tensor-parallel-size 8" in model
    http = (site / "reference/http.html").read_text()
    assert "PUT /v1/deployments/{name}" in http
    for face in FACES:
        page = (site / f"reference/python/{face}.html").read_text() + (site / "reference/python/index.html").read_text()
        assert [name for name, home in exports(face) if f'id="{home}"' not in page and f"#{home}" not in page] == []


@pytest.mark.slow
@pytest.mark.parametrize("opened", ["served", "from a folder"])
def test_a_browser_finds_pages_and_asks_no_other_host(site: Path, tmp_path: Path, opened: str) -> None:
    require_browser()
    at = served(site) if opened == "served" else nullcontext(site.as_uri())
    with at as url, browser(tmp_path / "profile") as window:
        window.get(f"{url}/book/layouts/gui16.html")
        loaded = window.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
        assert [name for name in loaded if not name.startswith(f"{url}/")] == []
        search = window.find_element(By.CSS_SELECTOR, "input.md-search__input")
        search.click()
        search.send_keys("gurow16")
        found = WebDriverWait(window, 60).until(
            lambda _: window.find_elements(By.CSS_SELECTOR, ".md-search-result__link")
        )
        assert "gurow16" in (found[0].get_attribute("href") or "")
        found[0].click()
        WebDriverWait(window, 60).until(lambda _: "gurow16" in window.current_url)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of the loopback interface."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_every_command_option_and_exit_code_is_described() -> None:
    pages = cli_pages()
    assert {f"reference/cli/{name}.md" for name in COMMANDS} < set(pages)
    assert all(f"| {code} | " in pages["reference/cli/index.md"] for code in EXIT_CODES)
    for name in COMMANDS:
        page = pages[f"reference/cli/{name}.md"]
        assert "**Exit codes:**" in page
        options = [action for action in parser_of(name)._actions if action.help != "==SUPPRESS=="]
        assert [word for action in options for word in action.option_strings if f"`{word}`" not in page] == []


@pytest.mark.parametrize(
    ("markup", "problem"),
    [
        ('<img src="https://cdn.example/a.png">', "a.html loads https://cdn.example/a.png"),
        ("<link rel=preconnect href=//fonts.example crossorigin>", "a.html loads //fonts.example"),
        ('<script src="gone.js"></script>', "a.html leads to gone.js, which is not there"),
        ('<a class="x" href="b.html#there">', "a.html leads to b.html#there, and b.html has no such place"),
        ('<a href="https://other.example/">', ""),
        ('<a href="b.html#here">', ""),
    ],
)
def test_the_check_of_a_site_sees_what_is_wrong(markup: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(markup)
    (tmp_path / "b.html").write_text('<h2 id="here">')
    (tmp_path / "search").mkdir()
    (tmp_path / "search/search_index.json").write_text('{"docs": [{"location": "a.html#x"}]}')
    found = list(problems(tmp_path))
    assert found == [*filter(None, [problem]), "the search does not know b.html"]


def test_links_say_titles_and_lead_out_of_the_documentation(tmp_path: Path) -> None:
    (tmp_path / "engines").mkdir()
    (tmp_path / "embed.md").write_text("# Embed it\n")
    page = tmp_path / "engines" / "vllm.md"
    assert say_titles("[embed.md](../embed.md#guard), [it](../embed.md), [a.md](a.md)", page) == (
        "[Embed it](../embed.md#guard), [it](../embed.md), [a.md](a.md)"
    )
    assert say_titles("[docs/embed.md](embed.md)", tmp_path / "index.md") == "[Embed it](embed.md)"
    led = lead_outside("[a](../../a.py#L1) [b](../embed.md) [c](#c)", "docs/engines", "https://e.example/blob/main")
    assert led == "[a](https://e.example/blob/main/a.py#L1) [b](../embed.md) [c](#c)"

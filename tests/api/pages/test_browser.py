"""The pages in a real browser: no error in its console, by keyboard, on a phone, dark and light, without a reload."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.ui import WebDriverWait

from support.pages.browser import browser, require_browser
from support.pages.contrast import worst_contrast
from support.service.server import OBSERVATION, REPORT, Server, running_server

NAME = "gpt-oss-prod"
ASK = "/resolve?model=openai/gpt-oss-120b&arch=gfx950&activation_dtype=fp4x2&tp=2"
LINK = f"https://example.org/{'x' * 90}"
FILTERED = "/?sort=node&group_by=label:team&label=tier=prod"
PAGES = (
    "/",
    FILTERED,
    f"/deployments/{NAME}",
    "/deployments/wrong/marks",
    "/deployments/wrong",
    f"/deployments/{NAME}/changes",
    "/changes",
    "/resolve",
    ASK,
    f"{ASK}&engine=vllm@0.33.0",
    "/matrix?engine=atom&tp=8&model=gpt",
    "/matrix?engine=atom&tp=8&arch=gfx90a&model=glm-5",
    "/book",
    "/book/rules",
    "/book/layouts/gui16",
    "/book/models/openai/gpt-oss-120b",
    "/book/diff?from=current",
    "/plan",
    "/docs",
    "/docs/runbooks",
    "/docs/runbooks/layout_mismatch",
)
AXE = (files("axe_core_python") / "axe.min.js").read_text()
SLOW = [pytest.param(1400, "dark", marks=pytest.mark.slow), pytest.param(360, "light", marks=pytest.mark.slow)]
AXE_RUNS = [(1400, "light"), (360, "dark"), *SLOW]
WIDTH = "return document.documentElement.scrollWidth"
WRONG: dict[str, Any] = {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "gui16"}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    require_browser()
    with running_server(tmp_path_factory.mktemp("service") / "store.db") as running:
        report(running, NAME, labels={"team": "a-team-of-a-long-name", "tier": "prod"}, owner="ann", link=LINK)
        report(running, "wrong", WRONG, node=f"node-{'0123456789' * 8}")
        report(running, "muted", WRONG)
        body = {"until": (datetime.now(UTC) + timedelta(hours=1)).isoformat(), "note": "a note " * 20}
        for name in ("muted", "wrong"):
            httpx.put(f"{running.url}/v1/deployments/{name}/acknowledgement", json={"note": "known"}).raise_for_status()
        httpx.put(f"{running.url}/v1/deployments/muted/silence", json=body).raise_for_status()
        yield running


@pytest.fixture(scope="module")
def opened(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as window:
        window.set_script_timeout(300)
        yield window


@pytest.fixture
def window(opened: Chrome) -> Iterator[Chrome]:
    opened.get_log("browser")
    yield opened
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    opened.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    opened.get("about:blank")


def report(server: Server, name: str, applied: dict[str, Any] | None = None, **more: Any) -> None:
    observation = {**OBSERVATION, **({"applied": applied} if applied else {})}
    body = {**REPORT, **more, "groups": [{"layers": "0-35", "observation": observation}]}
    assert httpx.put(f"{server.url}/v1/deployments/{name}", json=body).status_code in (200, 201)


def until(window: Chrome, condition: Callable[[], object], words: str) -> None:
    """Wait: on a busy machine everything takes a moment, and what is looked at may be replaced meanwhile."""
    gone = [StaleElementReferenceException]

    def met(_: object) -> bool:
        try:
            return bool(condition())
        except WebDriverException as error:  # what chromedriver says of a node while its page is being replaced
            if "does not belong to the document" not in str(error):
                raise
            return False

    WebDriverWait(window, 60, poll_frequency=0.05, ignored_exceptions=gone).until(met, words)


@contextmanager
def next_page(window: Chrome) -> Iterator[None]:
    """Do what leads to another page, and wait until that page has taken this one's place."""
    here = window.find_element(By.TAG_NAME, "html")
    yield
    until(window, lambda: staleness_of(here)(window), "no other page came")
    until(window, lambda: window.execute_script("return document.readyState") == "complete", "it did not load")


def text_of(window: Chrome, selector: str) -> str:
    return str(window.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector))


def test_no_page_has_an_error_or_is_wider_than_a_phone(server: Server, window: Chrome) -> None:
    metrics = {"width": 360, "height": 780, "deviceScaleFactor": 1, "mobile": True}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for path in PAGES:
        window.get(server.url + path)
        until(window, lambda: window.execute_script(WIDTH) <= 360, f"{path} is wider than 360 pixels")
        assert window.get_log("browser") == [], path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(server: Server, window: Chrome, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    for path in ("/", "/deployments/wrong", f"{ASK}&tp=0", "/matrix?engine=vlm", "/book", "/plan"):
        window.get(server.url + path)
        paper = window.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(15, 19, 25)") == (scheme == "dark")
        ratio, words = worst_contrast(window)
        assert ratio >= 4.5, f"{path}: {words!r} has a contrast of {ratio:.2f}"


@pytest.mark.parametrize(("width", "scheme"), AXE_RUNS)
def test_axe_finds_no_violation_on_any_page(server: Server, window: Chrome, scheme: str, width: int) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    rules = {"runOnly": ["color-contrast"]} if scheme == "dark" else {}  # nothing else depends on the scheme
    for path in PAGES:
        window.get(server.url + path)
        window.execute_script(AXE)
        run = "const done = arguments[1]; axe.run(document, {resultTypes: ['violations'], ...arguments[0]}).then(done)"
        violations = window.execute_async_script(run, rules)["violations"]
        found = [(rule["id"], [node["html"][:200] for node in rule["nodes"][:3]]) for rule in violations]
        assert found == [], path


def reads(window: Chrome, selector: str, text: str) -> bool:
    return text_of(window, selector) == text


def test_what_a_decision_needs_is_copied_with_a_button(server: Server, window: Chrome) -> None:
    allowed = {"origin": server.url, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    window.execute_cdp_cmd("Browser.grantPermissions", allowed)
    window.get(f"{server.url}{ASK}&engine=vllm@0.33.0")
    for ident in ("launch-line", "launch-environment", "launch-call"):
        button = window.find_element(By.CSS_SELECTOR, f".to-copy:has(#{ident}) button")
        button.send_keys(Keys.ENTER)
        shown = f".to-copy:has(#{ident}) [role=status]"
        until(window, partial(reads, window, shown, "Copied"), f"{ident} was not copied")
        copied = window.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
        assert copied == window.execute_script(f"return document.getElementById('{ident}').textContent")
    assert copied.startswith("from aiter import")


def test_what_cannot_be_copied_is_selected(server: Server, window: Chrome) -> None:
    window.get(f"{server.url}{ASK}&engine=vllm@0.33.0")
    window.execute_script("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    window.find_element(By.CSS_SELECTOR, ".to-copy:has(#launch-line) button").click()
    until(window, lambda: "selected" in text_of(window, ".to-copy [role=status]"), "nothing is said")
    selected = window.execute_script("return getSelection().toString()")
    assert selected.strip() == window.execute_script("return document.getElementById('launch-line').textContent")


def test_the_whole_matrix_scrolls_in_its_own_box_on_a_phone(server: Server, window: Chrome) -> None:
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    window.get(f"{server.url}/matrix?engine=atom&tp=8")
    assert window.execute_script(WIDTH) == 360
    box, table = "document.querySelector('.scroll')", "document.querySelector('table.matrix')"
    assert window.execute_script(f"return {table}.scrollWidth > {box}.clientWidth")
    assert window.find_elements(By.CSS_SELECTOR, "table.matrix td a[href*='/resolve?']")


def test_a_change_appears_without_a_reload(server: Server, window: Chrome) -> None:
    window.get(server.url)
    window.execute_script("window.same = true")
    report(server, "newcomer")
    until(window, lambda: "newcomer" in text_of(window, "#live"), "the new deployment did not appear")
    window.get(f"{server.url}/deployments/newcomer")
    window.execute_script("window.same = true")
    assert "ok" in text_of(window, "h1")
    report(server, "newcomer", WRONG)
    until(window, lambda: "mismatch" in text_of(window, "h1"), "the state did not change")
    until(window, lambda: "has changed since" in text_of(window, "#live"), "nobody was told to load again")
    assert text_of(window, "#events").count("reported") == 2
    window.find_element(By.CSS_SELECTOR, "#events summary").click()
    report(server, "newcomer")
    until(window, lambda: text_of(window, "#events").count("reported") == 3, "the history stood still")
    assert window.find_elements(By.CSS_SELECTOR, "#events details[open]")
    assert window.execute_script("return window.same") is True
    httpx.delete(f"{server.url}/v1/deployments/newcomer")


def test_a_book_that_stops_loading_is_said_on_the_page_that_is_open(tmp_path: Path, window: Chrome) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("rules: {}\n")
    with running_server(tmp_path / "store.db", "--book", str(overlay)) as server:
        window.get(server.url)
        assert text_of(window, "#book-state") == ""
        overlay.write_text("rules:\n  acme.first: {use: nothing}\n")
        until(window, lambda: f"{overlay}:2" in text_of(window, "#book-state"), "the mistake was not told")
        overlay.write_text("rules: {}\n# mended\n")
        until(window, lambda: text_of(window, "#book-state") == "", "the mistake stayed")


def test_the_list_is_narrowed_while_typing_and_by_state(server: Server, window: Chrome) -> None:
    window.get(server.url)
    window.execute_script("window.same = true")
    window.find_element(By.ID, "find").send_keys("WRO")
    until(window, lambda: NAME not in text_of(window, "table"), "the list was not narrowed")
    assert "wrong" in text_of(window, "table")
    assert window.execute_script("return window.same") is True
    assert window.current_url.endswith("name=WRO")
    window.get(server.url)
    with next_page(window):
        window.find_element(By.CSS_SELECTOR, ".filter.ok").click()
    assert window.current_url.endswith("/?state=ok")
    assert "wrong" not in text_of(window, "table")
    assert window.get_log("browser") == []


def test_it_works_without_scripts(server: Server, window: Chrome) -> None:
    window.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    window.get(server.url)
    with next_page(window):
        window.find_element(By.ID, "find").send_keys("wro", Keys.ENTER)
    rows = window.find_elements(By.CSS_SELECTOR, "table.cards tbody th")
    assert [row.text for row in rows] == ["wrong"]
    with next_page(window):
        window.find_element(By.LINK_TEXT, "wrong").click()
    assert "mismatch" in window.find_element(By.TAG_NAME, "h1").text
    assert window.find_element(By.ID, "s0-w13_weight-applied-memory").is_displayed()
    figure = window.find_element(By.CSS_SELECTOR, "#s0-w13_weight-applied figure")
    figure.find_element(By.TAG_NAME, "summary").click()
    assert "gate rows 0–15 at byte 0, 16, … 240" in figure.text


def test_the_keyboard_reaches_everything(server: Server, window: Chrome) -> None:
    window.get(server.url)
    ActionChains(window).send_keys(Keys.TAB).perform()
    skip = window.switch_to.active_element
    assert skip.text == "Skip to the content"
    assert skip.rect["x"] >= 0
    skip.send_keys(Keys.ENTER)
    assert window.switch_to.active_element.get_attribute("id") == "main"
    ActionChains(window).send_keys(Keys.TAB).perform()
    field = window.switch_to.active_element
    assert field.get_attribute("id") == "find"
    assert field.value_of_css_property("outline-style") == "solid"
    for _ in range(30):
        ActionChains(window).send_keys(Keys.TAB).perform()
        if window.switch_to.active_element.text == NAME:
            break
    with next_page(window):
        ActionChains(window).send_keys(Keys.ENTER).perform()
    assert NAME in text_of(window, "h1")


def test_a_query_is_asked_in_the_form_and_mistakes_are_told_at_their_field(server: Server, window: Chrome) -> None:
    window.get(f"{server.url}/resolve")
    window.find_element(By.ID, "model").send_keys("openai/gpt-oss-120b")
    window.find_element(By.ID, "arch").send_keys("gfx950")
    with next_page(window):
        window.find_element(By.ID, "tp").send_keys("none", Keys.ENTER)
    assert text_of(window, "#tp-wrong")
    field = window.find_element(By.ID, "tp")
    assert field.get_attribute("aria-invalid") == "true"
    assert window.find_element(By.ID, "arch").get_attribute("value") == "gfx950"
    field.clear()
    with next_page(window):
        field.send_keys("2", Keys.ENTER)
    assert text_of(window, ".recipe")
    assert window.find_element(By.ID, "s0-kernels").is_displayed()
    assert window.find_element(By.ID, "s0-w13_weight-memory").is_displayed()


def test_a_plan_is_asked_in_the_form(server: Server, window: Chrome) -> None:
    window.get(f"{server.url}/plan")
    when = "{model: openai/gpt-oss-120b, arch: gfx950, activation_dtype: fp4x2, tp: 2, engine: null}"
    rule = f"{{when: {when}, use: mxfp4.gui16, because: first, evidence: [https://x.example]}}"
    window.find_element(By.ID, "book").send_keys(f"rules: {{acme.first: {rule}}}")
    window.find_element(By.CSS_SELECTOR, "button").click()
    until(window, lambda: "would change" in text_of(window, "#answer"), "no plan")
    assert "restart needed" in text_of(window, "#answer")
    assert window.get_log("browser") == []


def test_pointing_at_a_cell_names_it_and_marks_it_in_both_drawings(server: Server, window: Chrome) -> None:
    window.get(f"{server.url}/deployments/{NAME}#s0-w2_weight")
    until(window, lambda: window.find_element(By.ID, "s0-w2_weight").get_attribute("open"), "it stayed folded")
    move_to(window, "s0-w13_weight-memory", (72 + 3 * 29 + 9, 20 + 18 + 9))  # the fourth cell of the second line
    marked = window.find_elements(By.CSS_SELECTOR, ".marked")
    places = [tuple(float(found.get_attribute(name) or "nan") for name in ("x", "y")) for found in marked]
    assert sorted(places) == [(90, 47), (159, 38)]
    assert text_of(window, ".tooltip") == "expert 0, gate row 3, bytes 16–31 lies at byte 304"
    move_to(window, "s0-w13_weight-rows", (40 + 25, 20 + 4))
    assert text_of(window, ".tooltip") == "expert 0, gate row 0, bytes 0–15 lies at byte 0"
    assert len(window.find_elements(By.CSS_SELECTOR, ".marked")) == 2
    move_to(window, "s0-w13_weight-rows", (4, 4))
    assert window.find_elements(By.CSS_SELECTOR, ".marked") == []
    assert not window.find_element(By.CSS_SELECTOR, ".tooltip").is_displayed()


def move_to(window: Chrome, ident: str, place: tuple[int, int]) -> None:
    """Move the pointer to a place of a drawing, in the drawing's own units."""
    script = """
    const svg = document.getElementById(arguments[0]);
    svg.scrollIntoView();
    const point = new DOMPoint(arguments[1], arguments[2]).matrixTransform(svg.getScreenCTM());
    const where = { clientX: point.x, clientY: point.y, bubbles: true };
    document.elementFromPoint(point.x, point.y).dispatchEvent(new PointerEvent("pointermove", where));
    """
    window.execute_script(script, ident, *place)


def test_a_deployment_is_on_the_page_after_a_restart(tmp_path: Path, window: Chrome) -> None:
    store = tmp_path / "store.db"
    with running_server(store) as first:
        report(first, "kept")
        assert first.stop() == 0
    with running_server(store) as second:
        window.get(second.url)
        row = text_of(window, "table tbody")
        for words in ("kept", "mxfp4.sep16", "same bytes"):
            assert words in row

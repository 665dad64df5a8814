"""The fleet's controls in a real browser: filters, silence, acknowledgement, forgetting, with a token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from preshuffle.api.web import make_token
from support.pages.browser import browser, require_browser
from support.service.server import OBSERVATION, REPORT, Server, running_server

WRONG: dict[str, Any] = {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "gui16"}}}


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    secret, entry = make_token("ops", "admin")
    file = tmp_path_factory.mktemp("tokens") / "tokens.yaml"
    file.write_text(f"tokens:\n  - {entry.model_dump_json()}\n")
    return secret, file


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, token: tuple[str, Path]) -> Iterator[Server]:
    require_browser()
    secret, file = token
    with running_server(tmp_path_factory.mktemp("service") / "store.db", "--tokens", str(file)) as running:
        for name, node, applied in (("prod", "n1", WRONG), ("canary", "n2", None)):
            observation = {**OBSERVATION, **({"applied": applied} if applied else {})}
            body = {**REPORT, "node": node, "groups": [{"layers": "0", "observation": observation}]}
            headers = {"Authorization": f"Bearer {secret}"}
            httpx.put(f"{running.url}/v1/deployments/{name}", json=body, headers=headers).raise_for_status()
        yield running


@pytest.fixture
def window(server: Server, tmp_path: Path) -> Iterator[Chrome]:
    with browser(tmp_path / "profile") as opened:
        opened.get(server.url)
        yield opened


def wait(window: Chrome, selector: str, words: str) -> None:
    """Wait until the page has words in an element; it may be replaced meanwhile."""
    script = "return document.querySelector(arguments[0])?.innerText?.includes(arguments[1]) ?? false"
    WebDriverWait(window, 60, poll_frequency=0.05).until(
        lambda _: window.execute_script(script, selector, words), f"{selector} does not say {words!r}"
    )


def act(window: Chrome, action: str) -> None:
    """Unfold the form, which comes from the service, and press a button of it."""
    window.find_element(By.CSS_SELECTOR, "#act summary").click()
    wait(window, "#marks", "Forget")
    window.find_element(By.CSS_SELECTOR, f"[data-action={action}]").click()


def test_a_deployment_is_silenced_acknowledged_and_forgotten_with_a_token(
    server: Server, window: Chrome, token: tuple[str, Path]
) -> None:
    window.get(f"{server.url}/deployments/prod")
    act(window, "silence")
    wait(window, "#mark-problem", "token")
    window.find_element(By.ID, "mark-token").send_keys(token[0])
    window.find_element(By.ID, "mark-note").send_keys("INC-7")
    Select(window.find_element(By.ID, "mark-hours")).select_by_value("24")
    window.find_element(By.CSS_SELECTOR, "[data-action=silence]").click()
    wait(window, "#live .mark", "by ops: INC-7")
    act(window, "acknowledge")  # the token stays while the tab is open
    wait(window, "#live", "acknowledged")
    act(window, "unsilence")
    wait(window, "#events", "is no longer silenced by ops")
    assert httpx.get(f"{server.url}/v1/deployments/prod").json()["silence"] is None
    act(window, "forget")
    window.switch_to.alert.accept()
    wait(window, "h1", "Deployments")
    assert httpx.get(f"{server.url}/v1/deployments/prod").status_code == 404


def test_filters_stay_while_a_name_is_typed(server: Server, window: Chrome) -> None:
    window.find_element(By.CSS_SELECTOR, "#more summary").click()
    window.find_element(By.ID, "by-node").send_keys("n2")
    window.find_element(By.ID, "find").send_keys("CAN")
    WebDriverWait(window, 60, poll_frequency=0.05).until(lambda _: "name=CAN" in window.current_url)
    assert window.current_url.partition("?")[2] == "name=CAN&node=n2"
    wait(window, "table.fleet", "canary")
    window.get(f"{server.url}/?node=n2&group_by=node")
    window.find_element(By.CSS_SELECTOR, "table tbody th a").click()
    WebDriverWait(window, 60).until(lambda _: window.current_url.endswith("/?node=n2"))

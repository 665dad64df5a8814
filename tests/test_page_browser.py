"""The whole way, as a user goes it: start, report, restart, look at the page."""

from pathlib import Path

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from support.browser import browser, require_browser
from support.server import REPORT, running_server

require_browser_first = pytest.fixture(autouse=True)(require_browser)


def test_a_deployment_is_on_the_page_after_a_restart(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    with running_server(store) as server:
        assert httpx.put(f"{server.url}/v1/deployments/gpt-oss-prod", json=REPORT).status_code == 201
        assert server.stop() == 0
    with running_server(store) as server, browser(tmp_path / "profile") as window:
        assert httpx.get(f"{server.url}/v1/deployments/gpt-oss-prod").json()["replicas"][0]["node"] == "node-1"

        window.get(server.url)
        row = window.find_element(By.CSS_SELECTOR, "table tbody")
        assert "gpt-oss-prod" in row.text
        assert "mxfp4.sep16" in row.text
        assert "same bytes" in row.text

        row.find_element(By.LINK_TEXT, "gpt-oss-prod").click()
        assert window.find_element(By.CSS_SELECTOR, ".recipe code").text == "mxfp4.sep16"
        assert "mxfp4.gui16" in window.find_element(By.CLASS_NAME, "alternatives").text
        memory = window.find_element(By.ID, "s0-w13_weight-memory")
        assert memory.is_displayed()
        first = memory.find_element(By.CSS_SELECTOR, "rect")
        assert first.value_of_css_property("fill") != "rgb(0, 0, 0)"  # the style sheet reached it
        assert [entry for entry in window.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_pointing_at_a_cell_lights_it_in_both_drawings(tmp_path: Path) -> None:
    with running_server(tmp_path / "store.db") as server, browser(tmp_path / "profile") as window:
        httpx.put(f"{server.url}/v1/deployments/gpt-oss-prod", json=REPORT)
        window.get(f"{server.url}/deployments/gpt-oss-prod#s0-w2_weight")
        assert window.find_element(By.ID, "s0-w2_weight").get_attribute("open") is not None
        cell = window.find_element(By.CSS_SELECTOR, "#s0-w13_weight-memory rect[data-at='256']")
        window.execute_script("arguments[0].dispatchEvent(new Event('pointerover', {bubbles: true}))", cell)
        lit = window.find_elements(By.CSS_SELECTOR, "rect.lit")
        assert {found.get_attribute("data-at") for found in lit} == {"256"}
        assert len(lit) == 2


@pytest.mark.parametrize("path", ["/", "/deployments/gpt-oss-prod", "/docs"])
def test_no_page_is_wider_than_a_phone(tmp_path: Path, path: str) -> None:
    with running_server(tmp_path / "store.db") as server, browser(tmp_path / "profile") as window:
        httpx.put(f"{server.url}/v1/deployments/gpt-oss-prod", json=REPORT)
        metrics = {"width": 360, "height": 780, "deviceScaleFactor": 2, "mobile": True}
        window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        window.get(server.url + path)
        # the override and the style sheet take a moment to arrive on a busy machine
        WebDriverWait(window, 10, poll_frequency=0.05).until(
            lambda _: window.execute_script("return document.documentElement.scrollWidth") <= 360,
            "the page is wider than 360 pixels",
        )

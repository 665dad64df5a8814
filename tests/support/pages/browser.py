"""Headless Chromium, driven by its own driver. Nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM = Path("/usr/bin/chromium")
DRIVER = Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def require_browser() -> None:
    """Skip where there is no browser, unless the environment insists on one."""
    if not (CHROMIUM.exists() and DRIVER.exists()) and not os.environ.get("PRESHUFFLE_REQUIRE_BROWSER"):
        pytest.skip("needs chromium and chromium-driver (apt-get install chromium chromium-driver)")


@contextmanager
def browser(profile: Path, *, width: int = 1280, height: int = 1000) -> Iterator[webdriver.Chrome]:
    """Open a window with a new profile in a folder."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()

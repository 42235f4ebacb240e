"""A browser for tests: headless Chromium with an empty profile, and what it complains of."""

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
FLAGS = """
--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
--disable-background-networking --disable-component-update --disable-dev-shm-usage
--window-size=1300,900
"""


def absent(reason):
    """Skip, or fail where a browser is required."""
    if os.environ.get("MUTMETA_REQUIRE_BROWSER") == "1":
        pytest.fail(f"MUTMETA_REQUIRE_BROWSER=1, but {reason}")
    pytest.skip(reason)


@contextmanager
def chromium():
    """The browser, as long as the block lasts."""
    names = ("chromium", "chromium-browser", "google-chrome")
    chrome = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if chrome is None or driver is None:
        absent("Chromium and chromedriver are not installed (Debian: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chrome
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        started = webdriver.Chrome(options=options, service=Service(driver))
        try:
            yield started
        finally:
            started.quit()


def troubles(browser):
    """Console errors and requests to other machines since the last call."""
    # A browser asks for /favicon.ico by itself on a page without an icon, such as the redirect.
    severe = [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]
    found = [message for message in severe if "/favicon.ico " not in message]
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            address = urlsplit(message["params"]["request"]["url"])
            if address.scheme in ("http", "https", "ws", "wss") and address.hostname != "127.0.0.1":
                found.append(f"request to {address.geturl()}")
    return found

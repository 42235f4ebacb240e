"""The built book in a browser: every page opens, offline, without errors, at any width."""

import functools
import hashlib
import http.server
import json
import os
import shutil
import tempfile
import threading
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from test_committed import FILES, ROOT

BUILT = ROOT / "book/_build/html"
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
FLAGS = """
--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
--disable-background-networking --disable-component-update --disable-dev-shm-usage
--window-size=1300,900
"""


def test_vendored_mathjax_is_the_file_that_the_note_names():
    folder = ROOT / "book/_static/mathjax"
    digest = hashlib.sha256((folder / "tex-svg-full.js").read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text()


def absent(reason):
    """Skip, or fail where a browser is required."""
    if os.environ.get("MUTMETA_REQUIRE_BROWSER") == "1":
        pytest.fail(f"MUTMETA_REQUIRE_BROWSER=1, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def site():
    """Serve the built book on this machine alone."""
    if not (BUILT / "index.html").is_file():
        absent("the book is not built (make book)")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(BUILT))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(site):
    """Headless Chromium with an empty profile."""
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


def seen(browser, what):
    """The first such element that is on the screen."""
    found = lambda b: [e for e in b.find_elements(By.CSS_SELECTOR, what) if e.is_displayed()]  # noqa: E731
    return WebDriverWait(browser, 20).until(found)[0]


def visit(browser, address):
    """Open a page and wait until its equations are there."""
    browser.get(address)
    browser.execute_async_script(
        "const done = arguments[0];"
        "(window.MathJax?.startup?.promise ?? Promise.resolve()).then(() => done(), () => done())"
    )


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


@pytest.mark.browser
def test_every_page_opens_offline_whole_and_named_and_no_wider_than_a_phone(browser, site):
    visit(browser, f"{site}/index.html")
    seen(browser, "nav.bd-links a")
    troubles(browser)
    links = browser.find_elements(By.CSS_SELECTOR, "nav.bd-links a.reference.internal")
    addresses = [browser.current_url, *(link.get_attribute("href") for link in links)]
    assert [urlsplit(a).path for a in addresses] == [f"/{page}.html" for page in FILES]
    for address in addresses:
        visit(browser, address)
        assert len(browser.find_element(By.CSS_SELECTOR, "article.bd-article").text) > 100, address
        faults = browser.execute_script(
            "const all = (what, wrong) => [...document.querySelectorAll(what)].filter(wrong);"
            "return {broken: all('img', i => i.complete && !i.naturalWidth).map(i => i.src),"
            "unnamed: all('article img', i => !i.alt || i.alt.endsWith('.png')).map(i => i.src),"
            "unset: all('article mjx-merror, article .math:not(:has(svg))', _ => 1).length}"
        )
        assert faults == {"broken": [], "unnamed": [], "unset": 0}, address
        assert troubles(browser) == [], address
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    try:
        for address in addresses:
            visit(browser, address)
            width = browser.execute_script("return document.documentElement.scrollWidth")
            assert width <= PHONE["width"], f"{address} is {width} pixels wide"
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.browser
def test_search_finds_the_method(browser, site):
    visit(browser, f"{site}/{FILES[0]}.html")
    troubles(browser)
    browser.find_element(By.CSS_SELECTOR, "button.search-button-field").click()
    seen(browser, "input[type=search]").send_keys("separator", Keys.ENTER)
    # Results appear one after the other.
    script = "return [...document.querySelectorAll('#search-results li a')].map(a => a.pathname)"
    found = lambda b: "/book/method.html" in b.execute_script(script)  # noqa: E731
    WebDriverWait(browser, 20).until(found)
    assert troubles(browser) == []

"""The built book in a browser: every page opens, offline, without errors, at any width."""

import functools
import hashlib
import http.server
import threading
from urllib.parse import urlsplit

import pytest
from browsing import PHONE, absent, troubles
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from test_committed import FILES, ROOT

BUILT = ROOT / "book/_build/html"


@pytest.mark.parametrize("name", ["mathjax", "reveal"])
def test_what_is_vendored_is_the_files_that_the_note_names(name):
    folder = ROOT / "book/_static" / name
    note = (folder / "README.md").read_text(encoding="utf-8")
    files = [path for path in folder.iterdir() if path.suffix in (".js", ".css")]
    assert files
    assert (folder / "LICENSE").is_file()
    for path in files:
        assert f"`{path.name}`" in note
        assert hashlib.sha256(path.read_bytes()).hexdigest() in note


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

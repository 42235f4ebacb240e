"""Lessons: what their commands name is there and within bounds; slides ask nothing of a network."""

import re

import jupytext
import pytest
from browsing import PHONE, absent, troubles
from bs4 import BeautifulSoup
from selenium.webdriver.support.ui import WebDriverWait
from test_committed import CHAPTERS, ROOT

from mutmeta_lib.app.notebooks import (
    check_parameters,
    default_parameters,
    parse_value,
    profile_parameters,
    read_yaml,
)

PLANS = {path.stem: path.read_text(encoding="utf-8") for path in ROOT.glob("book/lessons/*.md")}
DECKS = {name: ROOT / f"book/_build/slides/{name}.slides.html" for name in PLANS}
RUN = re.compile(r"mutmeta run (notebooks/(\w+)\.ipynb)((?: --?[a-z]+ \w+| -p \w+ \S+)*)")
ROW = re.compile(r"^\| `\.venv/bin/mutmeta run .*` \| (\d+) \| (\d+) \|", re.M)
READY = "return Boolean(window.Reveal?.isReady?.())"
MOST_SECONDS, MOST_MEGABYTES = 90, 2000


def test_the_profile_of_lessons_is_that_of_the_notebooks_they_run():
    asked = {run[1] for plan in PLANS.values() for run in RUN.findall(plan)}
    assert set(read_yaml(ROOT / "notebooks/params/class.yml")) == asked <= set(CHAPTERS)
    for name in asked:
        notebook = ROOT / f"notebooks/{name}.ipynb"
        given = check_parameters(notebook, profile_parameters(notebook, "class"))
        assert given.get("data_dir", "demo") == "demo"
        assert given.get("profile", "class") == "class"


@pytest.mark.parametrize("name", PLANS)
def test_what_a_plan_tells_to_type_is_there_and_was_measured_within_bounds(name):
    plan = PLANS[name]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z-]+)`", plan):
        assert re.search(rf"^{target}:.*##", makefile, re.M), target
    for path, _, options in RUN.findall(plan):
        defaults = default_parameters(ROOT / path)
        given = dict(re.findall(r"-p (\w+) (\S+)", options))
        typed = {name: parse_value(text, defaults.get(name)) for name, text in given.items()}
        check_parameters(ROOT / path, typed)
    rows = ROW.findall(plan)
    assert len(rows) == 4 == plan.count("| `.venv/bin/mutmeta run ")
    assert all(int(s) <= MOST_SECONDS and int(mb) <= MOST_MEGABYTES for s, mb in rows)
    assert f"book/_build/slides/{name}.slides.html" in plan


def slides():
    """The cells of the source, slide by slide."""
    shown = [[]]
    for cell in jupytext.read(ROOT / "book/slides/lessons.md").cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type")
        if kind == "slide":
            shown.append([])
        if kind != "skip":
            shown[-1].append(cell)
    return shown[1:]


def test_a_slide_is_left_out_of_a_deck_as_a_whole_and_plans_count_the_slides():
    decks = dict.fromkeys(PLANS, 0)
    for first, *others in slides():
        titled = first.source.startswith("# ")  # its lines differ from deck to deck
        left_out = set(first.metadata.get("tags", []))
        assert left_out <= {f"not-{name}" for name in decks}
        for cell in others:
            assert titled or set(cell.metadata.get("tags", [])) == left_out, first.source
        for name in decks:
            decks[name] += f"not-{name}" not in left_out
    last = {
        name: max(map(int, re.findall(r"slides? (?:\d+–)?(\d+)", plan)))
        for name, plan in PLANS.items()
    }
    assert last == decks


@pytest.mark.parametrize("name", DECKS)
def test_a_built_deck_names_no_resource_outside_itself_and_every_picture_has_words(name):
    if not DECKS[name].is_file():
        absent("the slides are not built (make slides)")
    page = BeautifulSoup(DECKS[name].read_text(encoding="utf-8"), "html.parser")
    named = [one for tag in page.find_all(True) for one in (tag.get("src"), tag.get("href")) if one]
    named += re.findall(r"(?:@import|url\()\s*[\"']?([^\"')]+)", "".join(map(str, page("style"))))
    assert [one[:80] for one in named if not one.startswith(("data:", "#"))] == []
    pictures = page.find_all("img")
    assert len(pictures) > 4
    assert [one["src"][:40] for one in pictures if len(one.get("alt", "")) < 30] == []
    assert page.find_all(class_="notes")


@pytest.mark.browser
@pytest.mark.parametrize("name", DECKS)
def test_a_deck_opens_offline_and_every_slide_fits(browser, name):
    if not DECKS[name].is_file():
        absent("the slides are not built (make slides)")
    for metrics in ({**PHONE, "width": 1280, "height": 760, "mobile": False}, PHONE):
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        try:
            browser.get(DECKS[name].as_uri())
            WebDriverWait(browser, 60).until(lambda b: b.execute_script(READY))
            wide = browser.execute_script(
                "const {width, height} = Reveal.getConfig(),"
                "  all = [...document.querySelectorAll('.slides section section')];"
                "return all.filter((one, i) => {"
                "  Reveal.slide(i);"
                "  return one.scrollWidth > width || one.scrollHeight > height"
                "}).map(one => one.innerText.slice(0, 40))"
            )
            assert wide == []
            assert troubles(browser) == []
        finally:
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

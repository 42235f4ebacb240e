"""The report of a ranking: whole, escaped, silent, small, the same twice, and to be read by all."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from browsing import PHONE, troubles

from mutmeta_lib.app.style import PALETTE
from mutmeta_lib.data.variants import AMINO_ACIDS, format_variant, single_variants
from mutmeta_lib.ranking import report
from mutmeta_lib.ranking.model import fit
from mutmeta_lib.records.files import DiskError

VOID = {"meta", "link"}
NASTY = """<script>alert(1)</script> "'><img src=//x.org/y> &amp; {{ 1 }} =1+1"""


def ranking(residues=60, n=12, *, equal=False, seed=0, **words):
    """A protein of random residues, and the ranking from random measurements of it."""
    generator = np.random.default_rng(seed)
    wild_type = "".join(generator.choice(list(AMINO_ACIDS), residues))
    singles = single_variants(wild_type)
    chosen = generator.choice(len(singles), n, replace=False)
    scores = np.ones(n) if equal else generator.normal(50, 9, n)
    table = {"mutant": [format_variant(singles[i]) for i in chosen], "score": scores}
    return fit(wild_type, pd.DataFrame(table) if n else None, **words)


class Page(HTMLParser):
    """Elements, text and headings of a page; an element that is not closed is an error."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.headings, self.open = [], "", [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if self.open[-1:] != ["style"] else ""

    def all(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


CASES = {
    "usual": {"property": "stability"},
    "lower is better": {"direction": "lower", "n": 30},
    "no label": {"n": 0},
    "one label": {"n": 1},
    "two labels": {"n": 2},
    "all labels equal": {"equal": True},
    "every variant measured": {"residues": 2, "n": 38},
    "one residue": {"residues": 1, "n": 3},
    "500 residues": {"residues": 500, "n": 40},
    "2,000 residues": {"residues": 2000, "n": 200},
}


@pytest.mark.parametrize("case", CASES)
def test_a_page_is_whole_asks_for_nothing_and_can_be_read_by_all(case):
    made = ranking(**CASES[case])
    text = report.render(made)
    page = Page(text)
    assert len(text.encode()) < (2e6 if len(made.wild_type) <= 500 else 5e6)
    # In order, no level left out, one title.
    assert page.headings[0] == 1
    assert set(page.headings[1:]) == {2}
    assert page.all("html")[0]["lang"].startswith("en")
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))
    assert all(cell.get("scope") for cell in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    # A browser that is asked to load anything is told not to, and there is nothing to load.
    assert "default-src 'none'" in page.all("meta")[1]["content"]
    assert not page.all("script", "img", "iframe", "object", "base", "form")
    asked = {key: v for _, a in page.elements for key, v in a.items() if key in ("href", "src")}
    assert all(value.startswith("data:") for value in asked.values())
    assert not re.search(r"https?:|url\(|@import", text)
    assert not re.search(r"\b(nan|inf|None|NaT)\b", page.text)


def test_the_same_ranking_gives_the_same_bytes_and_a_refusing_disk_is_told(tmp_path):
    for name in "ab":
        ranking().report(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(DiskError, match="cannot be written"):
        ranking().report(tmp_path / "a" / "b.html")


def test_names_properties_and_cells_are_text_whatever_they_hold():
    made = ranking(n=3, name=NASTY, property=NASTY)
    row = pd.DataFrame({"mutant": [NASTY], "used": [False], "why": [NASTY]})
    more = {"measured": pd.concat([made.measured, row]), "warnings": (NASTY,)}
    page, usual = Page(report.render(replace(made, **more))), Page(report.render(ranking(n=3)))
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in usual.elements}
    assert page.text.count(NASTY) >= 6  # title, heading, property, warning, row and why
    labels = [figure["aria-label"] for figure in page.all("svg") if "aria-label" in figure]
    assert any(NASTY in label for label in labels)


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_the_heat_map_has_every_cell_once_and_good_ones_in_the_good_colour(direction):
    made = ranking(120, 15, direction=direction)
    text = report.render(made)
    table = made.predict().set_index("mutant")
    steps = {}
    for step, cells in re.findall(r'<g class="s(-?\d)">(.*?)</g>', text, re.S):
        for column, row, mutant in re.findall(r'd="M(\d+) (\d+)h1.*?<title>(\w+) ', cells):
            assert mutant not in steps
            assert (int(mutant[1:-1]) - 1) % report.WIDTH == int(column)
            assert report.ROWS[int(row)] == mutant[-1]
            steps[mutant] = int(step)
    assert steps.keys() == set(table.index)
    ranked = [steps[mutant] for mutant in table.index]
    assert ranked == sorted(ranked, reverse=True)
    assert (ranked[0], ranked[-1]) == (report.STEPS, -report.STEPS)
    assert len(re.findall(r"\.5h0", text)) == 120 + 1  # the wild type, and its mark in the key
    assert len(re.findall(r"\.12h\.76", text)) == 15 + 1


def test_the_link_holds_the_ranked_table():
    made = ranking()
    (link,) = (a["href"] for a in Page(report.render(made)).all("a"))
    head, _, body = link.partition(",")
    assert head == "data:text/csv;charset=utf-8"
    expected = made.predict()
    found = pd.read_csv(io.StringIO(unquote(body)), keep_default_na=False, na_values=[""])
    assert list(found["mutant"]) == list(expected["mutant"])
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3, check_dtype=False)


def test_reliability_counts_what_intervals_hold_and_finds_those_that_are_too_narrow():
    rows = pd.DataFrame({"measured": np.random.default_rng(0).normal(3, 2, 400), "predicted": 3.0})
    for scale, good in ((1.0, True), (0.5, False), (2.0, False)):
        half = 1.6449 * 2 * scale
        levels = report._levels(rows.assign(lower=3 - half, upper=3 + half))
        assert [level for level, *_ in levels] == list(report.LEVELS)
        assert all((low <= inside <= high) == good for _, inside, _, low, high in levels)
    few = rows.head(report.FEW - 1).assign(lower=0.0, upper=6.0)
    assert report._levels(few) == []


@pytest.mark.parametrize(
    ("spearman", "n", "told", "not_told"),
    [
        ((0.8, 0.3, 0.1), 40, "“model” ranks best. It made", "chance"),
        (
            (0.3, 0.8, 0.1),
            40,
            "“without labels” ranks best. The ranking above is by “model”",
            "But",
        ),
        ((0.5, 0.3, 0.1), 10, "below 0.65 can be chance", "above is by"),
        ((0.8, 0.8, 0.1), 40, "“model” and “without labels” rank equally well", "best"),
        ((np.nan,) * 3, 2, "too few or too alike", "best"),
    ],
)
def test_the_check_in_words_says_who_is_best_and_when_nobody_can_tell(spearman, n, told, not_told):
    methods = ["model", "without labels", "one-hot ridge"]
    said = report._verdict(pd.DataFrame({"method": methods, "spearman": spearman, "n": n}), "model")
    assert told in said
    assert not_told not in said


def test_marked_colours_are_those_of_the_books_figures():
    source = report.__file__.replace(".py", ".html.jinja")
    with open(source, encoding="utf-8") as file:
        marked = re.findall(r"--(?:good|bad): (#\w+)", file.read())
    assert len(marked) == 4
    assert set(marked) <= set(PALETTE)


CONTRAST = """
const channels = text => text.match(/[\\d.]+/g).map(Number);
const light = text => {
  const part = c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const [r, g, b] = channels(text).map(part);
  return .2126 * r + .7152 * g + .0722 * b;
};
const ground = e => {
  const own = getComputedStyle(e).backgroundColor;
  return channels(own)[3] === 0 ? ground(e.parentElement) : own;
};
const ratio = (a, b) => (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
return [...document.body.querySelectorAll('*')].filter(e => !e.closest('title') &&
  [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
    const style = getComputedStyle(e);
    const ink = e.closest('svg') ? style.fill : style.color;
    return [ratio(light(ink), light(ground(e))), e.outerHTML.slice(0, 80)];
  }).filter(([found]) => !(found >= 4.5));
"""


@pytest.mark.browser
def test_in_a_browser_it_is_silent_no_wider_than_a_phone_and_of_enough_contrast(browser, tmp_path):
    ranking(120, 30, name=NASTY).report(tmp_path / "report.html")
    troubles(browser)
    try:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
        for scheme, page in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(22, 24, 27)")):
            wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
            browser.get((tmp_path / "report.html").as_uri())
            style = "return getComputedStyle(document.body).backgroundColor"
            assert browser.execute_script(style) == page
            assert browser.execute_script(CONTRAST) == []
            width = "return document.documentElement.scrollWidth"
            assert browser.execute_script(width) <= PHONE["width"]
            assert troubles(browser) == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize(("n", "told"), [(3, ""), (12, "with 10 labels"), (45, "with 40 labels")])
def test_it_says_how_often_such_intervals_held_elsewhere(n, told):
    text = Page(report.render(ranking(n=n))).text
    assert (told in text) if told else "197 assays" not in text
    assert ("91 % of the other" in text) == (n == 12)
